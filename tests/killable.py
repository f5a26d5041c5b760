"""Processes to kill: children that start in milliseconds, and the workers of a search.

The children are forked from a server that has imported the heavy libraries once, and that holds no thread, no
connection and no lock of the test's own process.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess

import pytest

from orchestrator.worker_pool.pool import WorkerPool

_PRELOADED = [
    "pytest",
    "numpy.random",
    "orchestrator.run_directory",
    "orchestrator.tracking.tracker",
    "tests.example_commits",
]


def start_child(target: Callable[..., None], *args: object) -> tuple[ForkServerProcess, Connection]:
    """Run `target(*args, connection)` in a child; returns it with the end that receives what it sends."""
    context: ForkServerContext = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=target, args=(*args, sender))
    child.start()
    sender.close()
    return child, receiver


def received(receiver: Connection) -> list[object]:
    """All that a dead child has sent."""
    messages = []
    while receiver.poll():
        try:
            messages.append(receiver.recv())
        except EOFError:
            break
    return messages


@contextmanager
def dying_workers(monkeypatch: pytest.MonkeyPatch, *, num: int = 4, seed: int = 0) -> Iterator[list[int]]:
    """Kills up to `num` workers of the searches that start meanwhile, at random moments; the ids of those killed."""
    pools: list[WorkerPool] = []
    enter = WorkerPool.__enter__

    def remembered(self: WorkerPool) -> WorkerPool:
        pools.append(self)
        return enter(self)

    monkeypatch.setattr(WorkerPool, "__enter__", remembered)
    rng, done, killed = random.Random(seed), threading.Event(), list[int]()

    def kill_now_and_then() -> None:
        while not done.wait(rng.uniform(0.05, 0.5)):
            workers = pools[0].workers if pools else ()
            if workers and len(killed) < num:
                with suppress(ProcessLookupError):  # dead already, and not missed yet
                    pid = rng.choice(workers).pid
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)

    killer = threading.Thread(target=kill_now_and_then)
    killer.start()
    try:
        yield killed
    finally:
        done.set()
        killer.join()
