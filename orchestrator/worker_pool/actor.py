"""The actor's side of the worker pool: one worker in a process of its own, and its errors as plain data."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from traceback import walk_tb
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # an actor that needs no torch starts without it
    from across.workers.base import Unit, UnitResult, WorkerDescription

PROJECT_PACKAGES = ("across.workers", "across.search_spaces")
MAX_MESSAGE_LENGTH = 500


class Worker(Protocol):
    """The body of an actor: a plain class, made on the actor from picklable arguments."""

    def describe(self) -> WorkerDescription: ...

    def run(self, unit: Unit, weights: NDArray[np.float32] | None) -> UnitResult:
        """Compute one unit: a pure function of its arguments and the worker's configuration."""


@dataclass(frozen=True)
class ActorDescription:
    """Where a worker runs."""

    device: str
    hostname: str
    pid: int


@dataclass(frozen=True)
class RaisedError:
    """An exception of the worker's code; as plain data, because not every exception survives pickling."""

    kind: str
    """Type and place: equal for the same error."""
    text: str
    """Type, message and place, in one line."""
    explanation: str
    """For users: the message alone where the exception was written for them, else `text`."""
    is_out_of_memory: bool
    hostname: str


@dataclass(frozen=True)
class GroupOutcome:
    """Results of the first units of a group; when `error` is set, the unit after them raised it."""

    results: tuple[UnitResult, ...]
    error: RaisedError | None
    seconds: float


class WorkerActor:
    """One worker, started by a call of its own so that its errors can be told from the actor's death."""

    def start(
        self, make_worker: Callable[..., Worker], arguments: Mapping[str, object]
    ) -> ActorDescription | RaisedError:
        """Make the worker."""
        try:
            self._worker = make_worker(**arguments)
            device = self._worker.describe().device
        except Exception as error:  # noqa: BLE001 - whatever the worker's code raises
            return describe_error(error)
        return ActorDescription(device, socket.gethostname(), os.getpid())

    def run(self, units: Sequence[Unit], weights: NDArray[np.float32] | None) -> GroupOutcome:
        """Compute `units` in order, up to the first that raises."""
        started = time.perf_counter()
        results: list[UnitResult] = []
        raised = None
        try:
            for unit in units:
                results.append(self._worker.run(unit, weights))
        except Exception as error:  # noqa: BLE001 - whatever the worker's code raises
            raised = describe_error(error)
        return GroupOutcome(tuple(results), raised, time.perf_counter() - started)


def describe_error(error: BaseException) -> RaisedError:
    """`error` as data, with the innermost place in the project's code (or else anywhere)."""
    message = str(error)
    name = type(error).__name__
    place = _place(error)
    line = " ".join(message.split())[:MAX_MESSAGE_LENGTH]
    text = f"{name}: {line}" + (f" ({place})" if place else "")
    explanation = message if isinstance(error, ValueError | OSError) and message else text
    return RaisedError(f"{name} ({place})", text, explanation, _is_out_of_memory(error), socket.gethostname())


def _place(error: BaseException) -> str:
    """Module, line and function; modules rather than files, so that it reads the same on every machine."""
    places = [
        (frame.f_globals.get("__name__", "?"), line, frame.f_code.co_name)
        for frame, line in walk_tb(error.__traceback__)
        if frame.f_globals.get("__name__") != __name__
    ]
    own = [place for place in places if place[0].startswith(PROJECT_PACKAGES)]
    if not places:
        return ""
    module, line, function = (own or places)[-1]
    return f"{module}:{line} in {function}"


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether smaller chunks would help: torch has a type for the GPU's allocator, and only texts for the rest."""
    if isinstance(error, MemoryError):
        return True
    if any(base.__name__ == "OutOfMemoryError" for base in type(error).__mro__):
        return True
    texts = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "can't allocate memory")
    return isinstance(error, RuntimeError) and any(text in str(error) for text in texts)
