"""RunDirectory: create, open, lock, commit, load, verify."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import yaml
from numpy.typing import NDArray

from across.orchestrator.run_directory.durable_files import (
    RunDirectoryError,
    create_file,
    explained_writes,
    remove_temporaries,
)
from across.orchestrator.run_directory.earlier_scores import EarlierScores
from across.orchestrator.run_directory.journal import Journal, Segment
from across.orchestrator.run_directory.lock import locked
from across.orchestrator.run_directory.pretraining import Pretraining
from across.orchestrator.run_directory.saved_weights import (
    TensorFileError,
    Tensors,
    load_tensors,
    save_tensors,
    weights_digest,
)
from across.orchestrator.run_directory.sealed_json import SealError, seal, unseal
from across.orchestrator.run_directory.spool import Checkpoint, Spool, SpooledResult
from across.orchestrator.state import Commit

_HEADER = """\
# Written by across; do not edit.
# Settings of a started search are changed with `across resume RUN --set key=value`.
"""


class RunDirectory:
    """One search on disk. Make it with `create` or `open`; to write, hold its `lock`."""

    def __init__(
        self, path: Path, *, config: dict[str, Any], environment: dict[str, str], run_uid: str
    ) -> None:
        self.path = path
        self.config = config
        """As resolved when the search was started, JSON values."""
        self.environment = environment
        """Versions of the libraries and the kind of device."""
        self.run_uid = run_uid
        self.journal = Journal(path / "journal")
        self._spool = Spool(path / "spool")

    @staticmethod
    def exists(path: Path) -> bool:
        """Whether `path` holds a run, intact or not."""
        return (path / "config.yaml").exists()

    @classmethod
    def create(cls, path: Path, config: Mapping[str, object], environment: Mapping[str, str]) -> RunDirectory:
        """A new run at `path`; raises `RunDirectoryError` if there is one. `config` holds JSON values."""
        if (path / "journal").is_dir() and any((path / "journal").iterdir()) and not cls.exists(path):
            raise RunDirectoryError(
                f"{path} holds a journal but no config.yaml: restore it, or use another folder"
            )
        with explained_writes(path):
            for folder in ("journal", "weights", "spool", "plots"):
                (path / folder).mkdir(parents=True, exist_ok=True)
        run_uid = uuid4().hex
        document = seal({"run_uid": run_uid, "environment": dict(environment), "config": dict(config)})
        text = _HEADER + yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
        try:
            create_file(path / "config.yaml", text.encode())
        except FileExistsError as error:
            raise RunDirectoryError(
                f"{path} holds a run already: `across resume {path}` continues it; a new one needs its own"
            ) from error
        return cls(path, config=document["config"], environment=dict(environment), run_uid=run_uid)

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """The run at `path`; raises `RunDirectoryError` if there is none that this version can read."""
        missing = [name for name in ("config.yaml", "journal") if not (path / name).exists()]
        if missing:
            what = f"it holds no {' and no '.join(missing)}" if path.is_dir() else "there is no such folder"
            raise RunDirectoryError(f"{path} is no run of across: {what}")
        file = path / "config.yaml"
        try:
            content = unseal(yaml.safe_load(file.read_text(encoding="utf-8")))
        except SealError as error:
            raise RunDirectoryError(f"{file} {error}; {_CONFIG_REMEDY}") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise RunDirectoryError(
                f"{file} is damaged or was edited (no YAML document); {_CONFIG_REMEDY}"
            ) from error
        except OSError as error:
            raise RunDirectoryError(f"cannot read {file}: {error.strerror}") from error
        return cls(path, **content)

    @property
    def pretraining(self) -> Pretraining:
        """What predictors learned before their first score."""
        return Pretraining(self.path / "predictor")

    @property
    def earlier_scores(self) -> EarlierScores:
        """What earlier runs had found when this one began."""
        return EarlierScores(self.path / "earlier_runs.json")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Be the one driver of this run; raises `RunInUseError`. A lock whose holder died is free."""
        with locked(self.path / "lock") as is_alone:
            if is_alone:
                for folder in (self.path, self.journal.folder, self.path / "weights", self.path / "spool"):
                    remove_temporaries(folder)
            try:
                yield
            finally:
                self._spool.close()

    def commit(self, commit: Commit, weights: Tensors | None = None) -> Commit:
        """Make `commit` durable with the weights that the next one starts from; returns it as it was written.

        With `weights` its `weights_digest` is filled in here. Raises `JournalConflictError` if another
        process committed this generation, `RunDirectoryError` if the disk does not take it; nothing is
        committed then.
        """
        self.journal.check_next(commit.number)
        if weights is not None:
            digest = weights_digest(weights)
            assert commit.weights_digest in ("", digest), "the commit was made with other weights"
            commit = replace(commit, weights_digest=digest)
            save_tensors(self.weights_path(commit.number), weights)
        self.journal.append(commit)
        with explained_writes(self.path):
            self._prune_weights(commit.number)
            self._spool.clear(up_to=commit.number)
        return commit

    def commits(self) -> tuple[Commit, ...]:
        """All commits in order, verified; raises `RunDirectoryError` naming all gaps and damaged files."""
        return self.journal.commits()

    def add_segment(self, first_commit: int, overrides: Mapping[str, object]) -> None:
        """Note settings that hold from `first_commit` on; see `Journal.add_segment`."""
        self.journal.add_segment(first_commit, overrides)

    def segments(self) -> tuple[Segment, ...]:
        """Changed settings in the order in which they hold."""
        return self.journal.segments()

    def settings(self) -> dict[str, Any]:
        """The config as it stands: as resolved at the start, with what was changed on resume."""
        settings = deepcopy(self.config)
        for segment in self.segments():
            for name, value in segment.overrides.items():
                *parents, last = name.split(".")
                section = settings
                for parent in parents:
                    section = section[parent]
                section[last] = value
        return settings

    def weights_path(self, commit_number: int) -> Path:
        """Where the weights of a commit lie as long as they are among the newest two."""
        return self.path / "weights" / f"{commit_number:06d}.safetensors"

    def load_weights(self, commit_number: int) -> dict[str, NDArray[Any]]:
        """The weights of a commit, verified against its digest; raises `RunDirectoryError`."""
        try:
            return self._verified_weights(commit_number)
        except TensorFileError as error:
            path = self.weights_path(commit_number)
            raise RunDirectoryError(f"{path} {error}; {self._weights_remedy(commit_number)}") from error

    def spool(self, commit_number: int, results: Iterable[SpooledResult]) -> None:
        """Keep finished units of the commit under way; see `Spool` for what survives what."""
        self._spool.append(commit_number, results)

    def spooled(self, commit_number: int) -> dict[str, SpooledResult]:
        """Finished units of an unfinished commit, by key."""
        return self._spool.results(commit_number)

    def save_checkpoint(
        self, commit_number: int, step: int, tensors: Tensors, extra: Mapping[str, object]
    ) -> None:
        """Keep a meta-learning phase under way after `step` outer steps; the newest one only."""
        self._spool.save_checkpoint(commit_number, step, tensors, extra)

    def load_checkpoint(self, commit_number: int) -> Checkpoint | None:
        """The checkpoint of an unfinished commit; None if there is none or, with a warning, a damaged one."""
        return self._spool.load_checkpoint(commit_number)

    def clear_spool(self) -> None:
        """Forget all finished work of unfinished commits, as settings that change results demand."""
        self._spool.clear()

    def _verified_weights(self, commit_number: int) -> dict[str, NDArray[Any]]:
        expected = self.journal.read(commit_number).weights_digest
        tensors, _ = load_tensors(self.weights_path(commit_number))
        if weights_digest(tensors) != expected:
            raise TensorFileError(
                f"does not hold the weights of commit {commit_number} (their digest differs)"
            )
        return tensors

    def _weights_remedy(self, commit_number: int) -> str:
        former = max((number for number in self._numbers_of_weights() if number < commit_number), default=-1)
        try:
            self._verified_weights(former)
        except (TensorFileError, RunDirectoryError):
            return "restore it from a backup: no intact weights of an earlier commit are left"
        lost = self.weights_path(commit_number).relative_to(self.path)
        journal = self.journal.path(former + 1).relative_to(self.path)
        return (
            f"restore it from a backup, or go back to commit {former}, whose weights are intact: delete "
            f"{lost}, {journal} and later journal files, then `across resume {self.path}` goes on from there"
        )

    def _numbers_of_weights(self) -> list[int]:
        return [int(path.stem) for path in self.path.glob("weights/[0-9]*.safetensors")]

    def _prune_weights(self, commit_number: int) -> None:
        """Keep the newest two; later ones than this commit's are left from a journal that was cut back."""
        numbers = self._numbers_of_weights()
        kept = sorted(number for number in numbers if number <= commit_number)[-2:]
        for number in set(numbers) - set(kept):
            self.weights_path(number).unlink(missing_ok=True)


_CONFIG_REMEDY = (
    "undo the change or restore it from a backup (settings of a started search are changed with "
    "`across resume RUN --set key=value`; another search needs another folder)"
)
