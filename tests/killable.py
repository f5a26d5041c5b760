"""Child processes that start in milliseconds and that a test may kill at any moment.

They are forked from a server that has imported the heavy libraries once, and that holds no thread, no connection
and no lock of the test's own process.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess

_PRELOADED = [
    "pytest",
    "numpy.random",
    "across.orchestrator.run_directory",
    "across.orchestrator.tracking.tracker",
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
