"""Ctrl-C and SIGTERM: the first asks for an orderly end, the second is one."""

from __future__ import annotations

import os
import signal
import sys
import time
from types import FrameType
from typing import NoReturn

ECHO_SECONDS = 1.0
"""Signals this close are one: `make` and service managers pass on what the process has had from them already."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Interruption:
    """Which signal came first, and when; there is one to a process, as there is of signal handlers."""

    def __init__(self) -> None:
        self.number: int = signal.SIGINT
        self.time: float | None = None

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Raise KeyboardInterrupt; Ray passes on no other exception from within its calls."""
        now = time.monotonic()
        if self.time is None:
            self.number, self.time = number, now
            raise KeyboardInterrupt
        if now - self.time > ECHO_SECONDS:
            os._exit(128 + number)


_interruption = _Interruption()


def take_signals() -> None:
    """Handle both signals here; to be called again after Ray, which takes SIGTERM for itself when it starts.

    A signal that is ignored, as SIGINT is under `nohup` or in the background, stays so.
    """
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interruption.handle)


def exit_code() -> int:
    """128 + the signal that came: 130 after Ctrl-C, 143 after SIGTERM."""
    return 128 + _interruption.number


def was_interrupted() -> bool:
    """Whether a signal came."""
    return _interruption.time is not None


def leave(code: int) -> NoReturn:
    """End the process now. Python's own way out frees all that torch and Ray loaded, which takes seconds more."""
    ray = sys.modules.get("ray")
    if ray is not None:
        ray.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
