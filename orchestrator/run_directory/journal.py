"""The journal: one immutable file a commit, and one for each change of settings on the way.

Only create, read, list and delete are asked of the file system. A file is created exclusively, so of two
processes that commit the same generation one loses, with an error, and nothing is overwritten.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from across.orchestrator.run_directory.durable_files import RunDirectoryError, create_file
from across.orchestrator.run_directory.sealed_json import SealError, canonical_json, read_sealed, sealed_bytes
from across.orchestrator.state import Commit, commit_from_json, commit_to_json, reproducible_part

_COMMIT_NAME = re.compile(r"(\d{6,})\.json")
_SEGMENT_NAME = re.compile(r"(\d{6,})\.settings(?:\.(\d+))?\.json")


class JournalConflictError(RunDirectoryError):
    """Another process committed this generation first; nothing of its commit was changed."""


@dataclass(frozen=True)
class Segment:
    """Settings that hold from a commit on, over those of config.yaml and of earlier segments."""

    first_commit: int
    overrides: dict[str, Any]
    """Dotted keys or nested sections, as they were given on resume."""


def fingerprint(commits: Iterable[Commit], start: str = "") -> str:
    """Chained sha256 of the commits without clocks and run ids.

    Equal for equal searches, whatever the workers did. `start` is the fingerprint of the commits before these,
    so that a long journal need not be hashed again.
    """
    chain = start
    for commit in commits:
        chain = hashlib.sha256(chain.encode() + canonical_json(reproducible_part(commit))).hexdigest()
    return chain


class Journal:
    """The files of the folder `journal/`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, number: int) -> Path:
        """The file of commit `number`."""
        return self.folder / f"{number:06d}.json"

    def check_next(self, number: int) -> None:
        """Raise unless `number` is the next commit: `JournalConflictError` if it is there already."""
        if self.path(number).exists():
            raise self._conflict(number)
        if number > 0 and not self.path(number - 1).exists():
            raise RunDirectoryError(
                f"{self.path(number)} cannot be written: {self.path(number - 1)}, the commit before it, is "
                "missing; restore it, or `across resume` to compute it again"
            )

    def append(self, commit: Commit) -> None:
        """Write the file of `commit`, durable when this returns; raises `JournalConflictError`."""
        self.check_next(commit.number)
        try:
            create_file(self.path(commit.number), sealed_bytes({"commit": commit_to_json(commit)}))
        except FileExistsError as error:
            raise self._conflict(commit.number) from error

    def read(self, number: int) -> Commit:
        """Commit `number`, verified; raises `RunDirectoryError`."""
        path = self.path(number)
        try:
            return _parse_commit(path, number)
        except SealError as error:
            raise RunDirectoryError(f"{path} {error}; {self._remedy(number)}") from error

    def commits(self) -> tuple[Commit, ...]:
        """All commits in order, verified; raises `RunDirectoryError` with all gaps and damaged files."""
        numbers = self._numbers()
        commits, problems = [], []
        for number in range(numbers[-1] + 1 if numbers else 0):
            path = self.path(number)
            try:
                if not path.exists():
                    raise SealError("is missing although later commits are there")
                commits.append(_parse_commit(path, number))
            except SealError as error:
                problems.append((number, f"{path} {error}"))
        if problems:
            lines = [problem for _, problem in problems]
            raise RunDirectoryError("\n".join([*lines, self._remedy(problems[0][0])]))
        return tuple(commits)

    def add_segment(self, first_commit: int, overrides: Mapping[str, object]) -> None:
        """Note settings that hold from commit `first_commit` on; it must not be committed yet.

        A further segment of the same commit is a further file (`000012.settings.1.json`) and holds over the
        former ones. Repeating the newest one, as a resume after a crash does, writes nothing.
        """
        if self.path(first_commit).exists():
            raise RunDirectoryError(
                f"settings cannot change from commit {first_commit} on: {self.path(first_commit)} is there"
            )
        content = {"first_commit": first_commit, "overrides": dict(overrides)}
        same_commit = [path for number, _, path in self._segment_files() if number == first_commit]
        if same_commit and canonical_json(self._read_segment(same_commit[-1])) == canonical_json(content):
            return
        suffix = f".{len(same_commit)}" if same_commit else ""
        path = self.folder / f"{first_commit:06d}.settings{suffix}.json"
        try:
            create_file(path, sealed_bytes(content))
        except FileExistsError as error:
            raise JournalConflictError(f"{path} was written by another process in the meantime") from error

    def segments(self) -> tuple[Segment, ...]:
        """All segments in the order in which they hold; raises `RunDirectoryError`."""
        contents = [self._read_segment(path) for _, _, path in self._segment_files()]
        return tuple(Segment(content["first_commit"], content["overrides"]) for content in contents)

    def _numbers(self) -> list[int]:
        matches = (_COMMIT_NAME.fullmatch(path.name) for path in self.folder.iterdir())
        return sorted(int(match[1]) for match in matches if match)

    def _segment_files(self) -> list[tuple[int, int, Path]]:
        matches = ((_SEGMENT_NAME.fullmatch(path.name), path) for path in self.folder.iterdir())
        return sorted((int(match[1]), int(match[2] or 0), path) for match, path in matches if match)

    def _read_segment(self, path: Path) -> dict[str, Any]:
        try:
            return read_sealed(path)
        except SealError as error:
            raise RunDirectoryError(
                f"{path} {error}; restore it from a backup, or delete it and give its settings again with "
                "`across resume RUN --set key=value`"
            ) from error

    def _conflict(self, number: int) -> JournalConflictError:
        return JournalConflictError(
            f"{self.path(number)} is there already: another process committed generation {number} of this "
            "run; only one driver may run a search, stop one of them, then `across resume`"
        )

    def _remedy(self, number: int) -> str:
        later = [other for other in self._numbers() if other > number]
        if not later:
            return f"restore it from a backup, or delete it: commit {number} is then computed again"
        return (
            f"restore it from a backup; without one, delete the journal from {self.path(number).name} to "
            f"{self.path(later[-1]).name}: the search then goes on after commit {number - 1}, if the weights of "
            "that commit are still there"
        )


def _parse_commit(path: Path, number: int) -> Commit:
    content = read_sealed(path)
    try:
        commit = commit_from_json(content["commit"])
    except (KeyError, ValidationError) as error:
        raise SealError(f"holds no commit that this version of across can read ({error})") from error
    if commit.number != number:
        raise SealError(f"holds commit {commit.number}: it was renamed")
    return commit
