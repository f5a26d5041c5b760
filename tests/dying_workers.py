"""Workers that die while a search needs them."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from across.orchestrator.worker_pool.pool import WorkerPool


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
