"""Files that are there completely or not at all, whenever the process dies or the disk is full.

A file is written under a temporary name in its own folder, brought to the disk (fsync), given its name in one
step, and its folder brought to the disk. Readers ignore the temporary names.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from across.errors import AcrossError

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NO_HARD_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
_NO_FOLDER_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})


class RunDirectoryError(AcrossError):
    """A run directory cannot be used as asked; says which file, what is wrong with it and what to do."""


@contextmanager
def explained_writes(path: Path) -> Iterator[None]:
    """Turn OSErrors while writing `path`, all but FileExistsError, into `RunDirectoryError`."""
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno in _NO_SPACE:
            message = (
                f"no space left for {path} ({error.strerror}): free some, then `across resume` goes on from "
                "the last commit, which is safe"
            )
        else:
            message = f"cannot write {path}: {error.strerror or error}"
        raise RunDirectoryError(message) from error


def create_file(path: Path, data: bytes) -> None:
    """Create `path`, durable and complete; FileExistsError, and nothing changed, if there is one already."""
    with explained_writes(path):
        temporary = _write_temporary(path, data)
        try:
            _publish(temporary, path, data)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)


def replace_file(path: Path, data: bytes) -> None:
    """Write `path`, durable and complete; readers see the former content or the new one."""
    with explained_writes(path):
        temporary = _write_temporary(path, data)
        try:
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)


def remove_temporaries(folder: Path) -> None:
    """Remove what killed writers left in `folder`; only for who knows that no other process writes there."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Bring the names in `folder` to the disk, where the file system knows how."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)


def write_fully(descriptor: int, data: bytes) -> None:
    """All of `data` to `descriptor`: one system call may take less, above all when space runs out."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _write_temporary(path: Path, data: bytes) -> Path:
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    _write_new(temporary, data)
    return temporary


def _publish(temporary: Path, path: Path, data: bytes) -> None:
    """Give the temporary file its name unless the name is taken."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        # NFS repeats a request whose answer was lost, and then finds our own link (see link(2)).
        if temporary.stat().st_nlink != 2:
            raise
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        _write_new(path, data)


def _write_new(path: Path, data: bytes) -> None:
    """Create and sync a file; no part of it is left when that fails."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        write_fully(descriptor, data)
        os.fsync(descriptor)
    except BaseException:  # Ctrl-C too
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
