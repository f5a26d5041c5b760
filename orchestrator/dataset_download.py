"""Downloads of the data sets' originals, checked against their published digests.

A file appears under its name only when it is complete and right; one that is there already is checked and kept, so
running a download again fetches what is missing.
"""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal
from uuid import uuid4

from across.errors import AcrossError

OMNIGLOT_URL = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python"
MINI_IMAGENET_URL = (
    "https://raw.githubusercontent.com/twitter-research/meta-learning-lstm/master/data/miniImagenet"
)

_BLOCK_SIZE = 1 << 18


class DownloadError(AcrossError):
    """A file could not be fetched or is not the original; says which one and what to do."""


@dataclass(frozen=True)
class RemoteFile:
    """One file to fetch: its name at the source, its name here, its published digest."""

    remote_name: str
    name: str
    algorithm: Literal["md5", "sha256"]
    digest: str


@dataclass(frozen=True)
class Download:
    """What a download left: all files of the data set that are now in place, and what to tell the user."""

    files: tuple[Path, ...]
    message: str


OMNIGLOT_FILES = (
    RemoteFile("images_background.zip", "images_background.zip", "md5", "68d2efa1b9178cc56df9314c21c6e718"),
    RemoteFile("images_evaluation.zip", "images_evaluation.zip", "md5", "6b91aef0f799c5bb55b94e3f2daec811"),
)

MINI_IMAGENET_FILES = (
    RemoteFile(
        "train.csv",
        "ravi_train.csv",
        "sha256",
        "498519cd8e49ce97ed26a4a3638966698ae41ab35e9c68538319fc9b46ba7d2f",
    ),
    RemoteFile(
        "val.csv",
        "ravi_val.csv",
        "sha256",
        "5658a59921ca027ee76af92949869c5d6f41d77592ff3b18db325a9d10c893b9",
    ),
    RemoteFile(
        "test.csv",
        "ravi_test.csv",
        "sha256",
        "2b7cfa78342995761a572a8158e539bc4e0a80f9bbd7d00c1e17a460fbbb93fa",
    ),
)


def fetch_omniglot(
    folder: Path, *, base_url: str = OMNIGLOT_URL, files: Sequence[RemoteFile] = OMNIGLOT_FILES
) -> Download:
    """Fetch Omniglot's two archives into `folder`; raises `DownloadError`."""
    paths = _fetch_all(folder, base_url, files)
    return Download(
        paths, f"Omniglot is complete in {folder}: set `root: {folder}` in the task source `omniglot`."
    )


def fetch_mini_imagenet(
    folder: Path, *, base_url: str = MINI_IMAGENET_URL, files: Sequence[RemoteFile] = MINI_IMAGENET_FILES
) -> Download:
    """Fetch mini-ImageNet's class lists into `folder`; raises `DownloadError`.

    The images have no official host. The lists number each class's images in their author's own preparation, and
    that numbering is not published as ImageNet file names, so they are not rebuilt from ImageNet here either.
    """
    paths = _fetch_all(folder, base_url, files)
    return Download(
        paths,
        f"The class lists of mini-ImageNet are in {folder}. Its images are under ImageNet's terms (non-commercial "
        f"research) and have no official download: get an archive of the 60,000 84x84 images, named like "
        f"n0153282900000005.jpg as in the lists, and place it at {folder / 'images.zip'} (any folders inside it will "
        f"do; so will a part of the images). Then set `root: {folder}` in the task source `mini_imagenet`.",
    )


def _fetch_all(folder: Path, base_url: str, files: Sequence[RemoteFile]) -> tuple[Path, ...]:
    """All `files`, tried to the last; raises one `DownloadError` with everything that failed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DownloadError(f"{folder}: cannot be made ({error.strerror}): choose another folder") from error
    paths, problems = [], []
    for file in files:
        try:
            paths.append(_fetch(folder, base_url, file))
        except DownloadError as error:
            problems.append(str(error))
    if problems:
        raise DownloadError("\n".join(problems))
    return tuple(paths)


def _fetch(folder: Path, base_url: str, file: RemoteFile) -> Path:
    target = folder / file.name
    if target.exists():
        _check_existing(target, file)
        return target
    url = f"{base_url}/{file.remote_name}"
    by_hand = f"run the command again, or download {url} by other means to {target}"
    temporary = folder / f".{file.name}.{uuid4().hex}.partial"
    try:
        with temporary.open("xb") as content:
            digest = _copy(url, content, file.algorithm)
        if digest != file.digest:
            raise DownloadError(
                f"{url}: what came is not the original ({file.algorithm} {digest}, expected {file.digest}): "
                f"{by_hand}"
            )
        temporary.replace(target)
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise DownloadError(f"{url}: {_reason(error)}: {by_hand}") from error
    except OSError as error:
        raise DownloadError(f"{target}: cannot be written ({error.strerror or error})") from error
    finally:
        temporary.unlink(missing_ok=True)
    return target


def _check_existing(target: Path, file: RemoteFile) -> None:
    try:
        with target.open("rb") as content:
            digest = hashlib.file_digest(content, file.algorithm).hexdigest()
    except OSError as error:
        raise DownloadError(f"{target}: cannot be read ({error.strerror})") from error
    if digest != file.digest:
        raise DownloadError(
            f"{target}: is there but is not the original ({file.algorithm} {digest}, expected {file.digest}): "
            "move it away and run the command again"
        )


def _copy(url: str, target: BinaryIO, algorithm: str) -> str:
    """Write what `url` answers to `target`; returns its digest. A short answer is an IncompleteRead."""
    state = hashlib.new(algorithm)
    with urllib.request.urlopen(url, timeout=60) as answer:
        expected = answer.headers.get("Content-Length")
        received = 0
        while block := answer.read(_BLOCK_SIZE):
            state.update(block)
            target.write(block)
            received += len(block)
    if expected is not None and received < int(expected):
        raise http.client.IncompleteRead(b"", int(expected) - received)
    return state.hexdigest()


def _reason(error: Exception) -> str:
    match error:
        case urllib.error.HTTPError():
            return f"the server answered {error.code} {error.reason}"
        case urllib.error.URLError():
            return f"cannot be reached ({error.reason})"
        case http.client.IncompleteRead():
            return f"the connection broke off, {error.expected} bytes before the end"
        case _:
            return f"the connection failed ({error or type(error).__name__})"
