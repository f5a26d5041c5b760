"""One driver a run: a lock that dies with its process.

`flock` belongs to the open file, so the kernel drops it when the process ends, however it ends. Where the
file system has no locks the search goes on: the journal's exclusive files still let only one process commit a
generation.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from across.orchestrator.run_directory.durable_files import RunDirectoryError, explained_writes, write_fully

_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})


class RunInUseError(RunDirectoryError):
    """Another living process runs this search; says which one and on which host."""


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Hold the lock file `path`; yields whether the file system has locks. Raises `RunInUseError`."""
    with explained_writes(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        is_locked = _acquire(descriptor, path)
        with explained_writes(path):
            os.ftruncate(descriptor, 0)
            write_fully(descriptor, f"{os.getpid()}@{socket.gethostname()}\n".encode())
        yield is_locked
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, path: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        pid, _, host = os.pread(descriptor, 4096, 0).decode(errors="replace").strip().partition("@")
        owner = f"process {pid} on {host}" if host else "another process"
        raise RunInUseError(
            f"{path.parent} is in use: {owner} runs this search; wait for it or stop it, then `across resume`"
        ) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise RunDirectoryError(f"cannot lock {path}: {error.strerror}") from error
        return False
    return True
