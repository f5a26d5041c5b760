"""What earlier runs found, as it was when this run began: a copy, so that a resume does not depend on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from across.orchestrator.run_directory.durable_files import RunDirectoryError, replace_file
from across.orchestrator.run_directory.sealed_json import SealError, read_sealed, sealed_bytes

ScoresOfRuns: TypeAlias = Mapping[str, Mapping[str, float]]
"""By the run's name and the genotype's string, in the order in which they were evaluated."""


@dataclass(frozen=True)
class EarlierScores:
    """The file `earlier_runs.json` of a run."""

    path: Path

    def exists(self) -> bool:
        return self.path.exists()

    def save(self, scores: ScoresOfRuns) -> None:
        """Write the copy, durable; raises `RunDirectoryError`."""
        runs = {name: [list(pair) for pair in own.items()] for name, own in scores.items()}
        replace_file(self.path, sealed_bytes({"runs": runs}))

    def load(self) -> dict[str, dict[str, float]]:
        """The copy; raises `RunDirectoryError` where it is missing or damaged."""
        try:
            runs = read_sealed(self.path)["runs"]
        except SealError as error:
            raise RunDirectoryError(
                f"{self.path} {error}: it holds what the search knew from earlier runs; restore it from a backup"
            ) from error
        return {name: {genotype: float(score) for genotype, score in own} for name, own in runs.items()}
