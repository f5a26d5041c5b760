"""The spool: work of the commit under way, so that a driver that dies loses none of it.

It saves time and is never needed for a correct result: what is damaged in it is left out and computed again.
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from zlib import crc32

from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from across.orchestrator.run_directory.durable_files import explained_writes, write_fully
from across.orchestrator.run_directory.saved_weights import (
    TensorFileError,
    Tensors,
    load_tensors,
    save_tensors,
    weights_digest,
)
from across.orchestrator.run_directory.sealed_json import canonical_json
from across.workers.base import EvaluationResult, SignalResult

SpooledResult: TypeAlias = EvaluationResult | SignalResult
"""Results of units that are kept; their required fields tell the kinds apart."""

_NAME = re.compile(r"(\d{6,})\.(?:jsonl|checkpoint\.safetensors)")
_result_adapter: TypeAdapter[SpooledResult] = TypeAdapter(SpooledResult)


@dataclass(frozen=True)
class Checkpoint:
    """A meta-learning phase under way, after `step` outer steps of its commit."""

    step: int
    tensors: dict[str, NDArray[Any]]
    extra: dict[str, Any]
    """JSON values, as they were given."""


class Spool:
    """The files of the folder `spool/`, with a handle on the one that is appended to.

    Results: one line each, `crc32 json`. Lines are handed to the operating system but not forced to the disk:
    the death of the process loses none, a power cut may lose the last. A line whose checksum fails is left out.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open_number = -1
        self._descriptor = -1

    def append(self, commit_number: int, results: Iterable[SpooledResult]) -> None:
        """Add finished units of the commit under way; raises `RunDirectoryError`."""
        lines = b"".join(_to_line(result) for result in results)
        path = self._results_path(commit_number)
        with explained_writes(path):
            if self._open_number != commit_number:
                self._open(commit_number)
            try:
                write_fully(self._descriptor, lines)
            except OSError:
                self.close()  # opening it again ends the torn line
                raise

    def results(self, commit_number: int) -> dict[str, SpooledResult]:
        """Finished units by key; of equal keys the later one."""
        path = self._results_path(commit_number)
        if not path.exists():
            return {}
        parsed = (_from_line(line) for line in path.read_bytes().split(b"\n"))
        return {result.key: result for result in parsed if result is not None}

    def save_checkpoint(
        self, commit_number: int, step: int, tensors: Tensors, extra: Mapping[str, object]
    ) -> None:
        """Replace the commit's checkpoint, durable; raises `RunDirectoryError`."""
        metadata = {
            "step": str(step),
            "extra": canonical_json(dict(extra)).decode(),
            "digest": weights_digest(tensors),
        }
        save_tensors(self._checkpoint_path(commit_number), tensors, metadata)

    def load_checkpoint(self, commit_number: int) -> Checkpoint | None:
        """The commit's checkpoint, None where there is none; a damaged one is none, with a warning."""
        path = self._checkpoint_path(commit_number)
        if not path.exists():
            return None
        try:
            tensors, metadata = load_tensors(path)
            if metadata["digest"] != weights_digest(tensors):
                raise TensorFileError("is damaged (its checksum does not match)")
            return Checkpoint(int(metadata["step"]), tensors, json.loads(metadata["extra"]))
        except (TensorFileError, KeyError) as error:
            warnings.warn(f"{path} {error}: its outer steps are computed again", stacklevel=2)
            return None

    def clear(self, *, up_to: int | None = None) -> None:
        """Remove what was spooled for commit `up_to` and earlier ones; None: for any."""
        self.close()
        for path in self.folder.glob("*"):
            match = _NAME.fullmatch(path.name)
            if match and (up_to is None or int(match[1]) <= up_to):
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the handle; appending opens it again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._open_number = self._descriptor = -1

    def _open(self, commit_number: int) -> None:
        self.close()
        path = self._results_path(commit_number)
        path.parent.mkdir(exist_ok=True)
        self._descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        self._open_number = commit_number
        size = os.fstat(self._descriptor).st_size
        if size and os.pread(self._descriptor, 1, size - 1) != b"\n":
            write_fully(self._descriptor, b"\n")

    def _results_path(self, commit_number: int) -> Path:
        return self.folder / f"{commit_number:06d}.jsonl"

    def _checkpoint_path(self, commit_number: int) -> Path:
        return self.folder / f"{commit_number:06d}.checkpoint.safetensors"


def _to_line(result: SpooledResult) -> bytes:
    document = to_json(result, inf_nan_mode="strings")
    return b"%08x %s\n" % (crc32(document), document)


def _from_line(line: bytes) -> SpooledResult | None:
    checksum, _, document = line.partition(b" ")
    if checksum != b"%08x" % crc32(document):
        return None
    try:
        return _result_adapter.validate_python(json.loads(document))
    except (ValidationError, ValueError):  # of another version
        return None
