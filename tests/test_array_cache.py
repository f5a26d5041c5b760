"""The shared image cache: keyed by its sources, safe among processes, unharmed by killed writers."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from across.workers.base import TaskDataError
from across.workers.tasks.array_cache import ImagesShape, cache_folder, cached_images

SHAPE: ImagesShape = (4, 1, 3, 3)


def images_of(value: int, shape: ImagesShape = SHAPE) -> Iterator[NDArray[np.uint8]]:
    for number in range(shape[0]):
        yield np.full(shape[1:], value + number, dtype=np.uint8)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("ACROSS_CACHE", str(folder))
    return folder


@pytest.fixture
def data_file(tmp_path: Path) -> Path:
    path = tmp_path / "data.zip"
    path.write_bytes(b"images")
    return path


def open_cached(
    data_file: Path, value: int, *, size: int = 28, shape: ImagesShape = SHAPE
) -> NDArray[np.uint8]:
    return cached_images(
        "toy",
        sources=[data_file],
        settings={"image_size": size},
        shape=shape,
        decode=lambda: images_of(value, shape),
    )


def test_images_are_decoded_once_and_mapped_read_only(cache: Path, data_file: Path) -> None:
    first = open_cached(data_file, 10)
    second = open_cached(data_file, 20)
    assert first[:, 0, 0, 0].tolist() == second[:, 0, 0, 0].tolist() == [10, 11, 12, 13]
    assert isinstance(second.base, np.memmap)
    assert not second.flags.writeable
    assert sorted(path.suffix for path in cache.iterdir()) == [".lock", ".npy"]


def test_a_change_of_source_settings_or_shape_decodes_anew(cache: Path, data_file: Path) -> None:
    open_cached(data_file, 10)
    assert open_cached(data_file, 20, size=14)[0, 0, 0, 0] == 20
    assert open_cached(data_file, 30, shape=(4, 3, 3, 3))[0, 0, 0, 0] == 30
    data_file.write_bytes(b"image2")
    os.utime(data_file, ns=(1, 1))
    assert open_cached(data_file, 40)[0, 0, 0, 0] == 40
    data_file.write_bytes(b"longer than before")
    os.utime(data_file, ns=(1, 1))
    assert open_cached(data_file, 50)[0, 0, 0, 0] == 50


def test_a_truncated_cache_file_is_written_anew(cache: Path, data_file: Path) -> None:
    open_cached(data_file, 10)
    [path] = cache.glob("*.npy")
    for length in (0, 5, 100, path.stat().st_size - 1):
        path.write_bytes(path.read_bytes()[:length])
        assert open_cached(data_file, 60)[3, 0, 2, 2] == 63


def test_a_failed_decoding_leaves_nothing_and_can_be_repeated(cache: Path, data_file: Path) -> None:
    def fail() -> Iterator[NDArray[np.uint8]]:
        yield from list(images_of(1))[:2]
        raise TaskDataError("image 2 is damaged")

    with pytest.raises(TaskDataError, match="image 2 is damaged"):
        cached_images("toy", sources=[data_file], settings={"image_size": 28}, shape=SHAPE, decode=fail)
    assert [path.suffix for path in cache.iterdir()] == [".lock"]
    assert open_cached(data_file, 10)[0, 0, 0, 0] == 10


def test_a_full_disk_is_an_error_that_names_the_setting(cache: Path, data_file: Path) -> None:
    def fill_disk() -> Iterator[NDArray[np.uint8]]:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield

    with pytest.raises(TaskDataError, match=r"No space left on device\): set ACROSS_CACHE"):
        cached_images("toy", sources=[data_file], settings={}, shape=SHAPE, decode=fill_disk)


def test_a_cache_folder_that_cannot_be_made_is_an_error(
    data_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACROSS_CACHE", str(data_file / "inside_a_file"))
    with pytest.raises(TaskDataError, match="set ACROSS_CACHE to a folder with room"):
        open_cached(data_file, 10)


def test_the_default_folder_is_in_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ACROSS_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "across"


# A writer in another process: it reports when it begins to decode, then takes its time.
WRITER = """
import sys, time
from pathlib import Path
import numpy as np
from across.workers.tasks.array_cache import cached_images

def decode():
    with open(sys.argv[2], "a") as log:
        log.write("decoding\\n")
    for number in range(4):
        time.sleep(float(sys.argv[3]))
        yield np.full((1, 3, 3), 10 + number, dtype=np.uint8)

images = cached_images(
    "toy", sources=[Path(sys.argv[1])], settings={"image_size": 28}, shape=(4, 1, 3, 3), decode=decode
)
print(images[:, 0, 0, 0].tolist())
"""


def start_writer(data_file: Path, log: Path, seconds_an_image: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(data_file), str(log), str(seconds_an_image)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    )


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.01)


def test_a_process_waits_for_another_that_decodes(cache: Path, data_file: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    writer = start_writer(data_file, log, 0.2)
    wait_for(log)
    assert open_cached(data_file, 80)[:, 0, 0, 0].tolist() == [10, 11, 12, 13]
    output, _ = writer.communicate(timeout=60)
    assert output == "[10, 11, 12, 13]\n"


def test_a_killed_writer_blocks_nobody_and_leaves_nothing_wrong(
    cache: Path, data_file: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    writer = start_writer(data_file, log, 30)
    wait_for(log)
    writer.send_signal(signal.SIGKILL)
    writer.communicate(timeout=60)
    assert open_cached(data_file, 70)[:, 0, 0, 0].tolist() == [70, 71, 72, 73]
    assert sorted(path.suffix for path in cache.iterdir()) == [".lock", ".npy"]
