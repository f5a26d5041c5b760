"""Decoded images in one memory-mapped file that all processes of a node share.

Decoding a data set takes seconds to minutes, and every actor needs all of it. The first process that asks decodes
into a file of the cache folder; the others wait for it, and all map the same pages.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from across.workers.base import TaskDataError

ImagesShape: TypeAlias = tuple[int, int, int, int]
"""Number of images, channels, height, width."""


def cache_folder() -> Path:
    """Where decoded arrays lie: `$ACROSS_CACHE`, or `~/.cache/across`."""
    configured = os.environ.get("ACROSS_CACHE")
    return Path(configured).expanduser() if configured else Path.home() / ".cache" / "across"


def cached_images(
    name: str,
    *,
    sources: Sequence[Path],
    settings: Mapping[str, object],
    shape: ImagesShape,
    decode: Callable[[], Iterable[NDArray[np.uint8]]],
) -> NDArray[np.uint8]:
    """The images that `decode` yields as one read-only, memory-mapped array of `shape`.

    They are decoded anew when a source file (its path, size or modification time), the settings (JSON values) or
    the shape change. `name` is for people who look into the folder. Safe among processes: one decodes, the rest
    wait; one that is killed leaves nothing that another would read. Raises `TaskDataError` when the cache folder
    cannot be used; what `decode` raises passes through.
    """
    folder = cache_folder()
    target = folder / f"{name}-{_digest(sources, settings, shape)}.npy"
    try:
        images = _open(target, shape)
        if images is None:
            folder.mkdir(parents=True, exist_ok=True)
            with _locked(target.with_suffix(".lock")):
                images = _open(target, shape)
                if images is None:
                    _write(target, shape, decode())
                    images = _open(target, shape)
    except OSError as error:
        raise TaskDataError(
            f"the image cache {target} cannot be used ({error.strerror or error}): "
            "set ACROSS_CACHE to a folder with room"
        ) from error
    if images is None:
        raise TaskDataError(
            f"the image cache {target} was changed while it was opened: delete it and try again"
        )
    return images


def _digest(sources: Sequence[Path], settings: Mapping[str, object], shape: ImagesShape) -> str:
    files = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in sources]
    text = json.dumps({"files": files, "settings": dict(settings), "shape": shape}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _open(target: Path, shape: ImagesShape) -> NDArray[np.uint8] | None:
    """The array in `target`, or None where there is no complete one."""
    try:
        images = np.load(target, mmap_mode="r", allow_pickle=False)
    except (FileNotFoundError, ValueError, EOFError):
        return None
    if images.shape != shape or images.dtype != np.uint8:
        return None
    # A plain view: indexing a np.memmap makes an instance of the subclass each time.
    return np.asarray(images)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`. The kernel frees it when its holder dies, so the file itself may stay."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write(target: Path, shape: ImagesShape, images: Iterable[NDArray[np.uint8]]) -> None:
    """Write `images` to a temporary file, then rename it. Only the lock's holder writes, so one name serves."""
    temporary = target.with_suffix(".partial")
    try:
        with temporary.open("wb") as file:
            _write_array(file, shape, images)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _write_array(file: BinaryIO, shape: ImagesShape, images: Iterable[NDArray[np.uint8]]) -> None:
    # Written image by image rather than through a writable map: a full disk is then an OSError, not a SIGBUS.
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    num_bytes = 0
    for image in images:
        assert image.shape == shape[1:], image.shape
        num_bytes += file.write(image.tobytes())
    assert num_bytes == prod(shape), (num_bytes, shape)
