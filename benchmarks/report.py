"""What all benchmarks share: their options, their table, their JSON rows."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Measurement:
    """One line of the table, and one entry of the list that `--json` writes."""

    case: str
    """A path, from the general to the particular."""
    metric: str
    value: float
    unit: str
    n: int
    """Repetitions that the value comes from."""

    def __str__(self) -> str:
        is_share = self.metric.startswith(("accuracy", "kendall", "precision"))
        digits = 0 if abs(self.value) >= 1000 else 4 if is_share else 2
        return f"{self.case:44} {self.metric:34} {self.value:12,.{digits}f} {self.unit:5} n={self.n}"


def make_parser(description: str, *, full: str) -> argparse.ArgumentParser:
    """A parser with `--full` and `--json`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--full", action="store_true", help=full)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the measurements to FILE")
    return parser


def show(measurements: Iterable[Measurement]) -> list[Measurement]:
    """The measurements, each printed as it comes."""
    lines = []
    for line in measurements:
        print(line, flush=True)
        lines.append(line)
    return lines


def write_json(path: Path | None, measurements: Sequence[Measurement]) -> None:
    """The measurements as a JSON list, if a file was named."""
    if path is not None:
        path.write_text(json.dumps([asdict(line) for line in measurements], indent=1) + "\n")
