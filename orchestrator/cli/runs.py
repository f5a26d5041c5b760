"""Runs as the command line names them, and what their directories tell without starting anything."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from across.errors import AcrossError

if TYPE_CHECKING:
    from across.orchestrator.progress import RunPhase, RunStatus
    from across.orchestrator.state import Commit
    from across.search_spaces.base import SearchSpace

RUNS_FOLDER = Path("runs")

address_option = click.option(
    "--address",
    metavar="auto|local|HOST",
    help="The Ray cluster: `local` starts one on this machine, `auto` joins the one it belongs to, HOST[:PORT] the"
    " one with that head node. Without it: auto within a Ray job, else local.",
)
runs_dir_option = click.option(
    "--runs-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=RUNS_FOLDER,
    show_default=True,
    help="The folder that holds the runs.",
)
set_option = click.option(
    "--set",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="Change a setting, such as `search.num_generations=50`; can be repeated.",
)


class UnknownRunError(AcrossError):
    """There is no run of this name; says which there are."""


def find_run(run: str, runs_folder: Path = RUNS_FOLDER) -> Path:
    """The run directory at the path `run`, or of that name in `runs_folder`; raises `UnknownRunError`."""
    places = Path(run), runs_folder / run
    for path in (*(place for place in places if (place / "config.yaml").exists()), *places):
        if path.is_dir():
            return path.absolute()
    names = [path.name for path in run_folders(runs_folder)]
    close = get_close_matches(Path(run).name, names, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(names) or 'none'}"
    raise UnknownRunError(f"no run {run}: no such folder, here or in {runs_folder}; {hint}")


def run_folders(runs_folder: Path) -> list[Path]:
    """The run directories in `runs_folder`, by name."""
    return sorted(path.parent for path in runs_folder.glob("*/config.yaml"))


def notation(settings: dict[str, Any]) -> SearchSpace:
    """The run's search space, to read and write genotypes with.

    Their strings do not depend on the images, so no data is opened here, which may be on another machine.
    """
    from pydantic import TypeAdapter

    from across.search_spaces import SpaceConfig
    from across.search_spaces.base import NOTATION_SHAPE

    config: SpaceConfig = TypeAdapter[SpaceConfig](SpaceConfig).validate_python(settings["space"])
    return config.build(NOTATION_SHAPE)


def best_genotype(settings: dict[str, Any], commits: Sequence[Commit]) -> str:
    """The string of the genotype that is best by now; empty before the first generation."""
    from across.orchestrator.finalists import choose_finalists

    space = notation(settings)
    num_generations = settings["test"]["num_last_generations"]
    best = choose_finalists(commits, space, num_finalists=1, num_generations=num_generations)
    return space.to_string(best[0].genotype) if best else ""


def run_status(run_dir: Path) -> RunStatus:
    """The state of a run; raises `RunDirectoryError`."""
    from across.orchestrator.progress import RunStatus, summarize_generations
    from across.orchestrator.run_directory import RunDirectory, fingerprint

    run = RunDirectory.open(run_dir)
    commits = run.commits()
    settings = run.settings()
    changed_at = commits[-1].timestamp if commits else (run_dir / "config.yaml").stat().st_mtime
    return RunStatus(
        run_dir=run_dir,
        phase=_phase(run_dir, settings, commits),
        total_generations=settings["search"]["num_generations"],
        generations=summarize_generations(commits),
        age_seconds=max(0.0, time.time() - changed_at),
        best_genotype=best_genotype(settings, commits),
        fingerprint=fingerprint(commits),
    )


def _phase(run_dir: Path, settings: dict[str, Any], commits: Sequence[Commit]) -> RunPhase:
    from across.orchestrator.state import is_finished

    if _is_locked(run_dir / "lock"):
        return "running"
    return "finished" if is_finished(commits, **settings["search"]) else "interrupted"


def _is_locked(path: Path) -> bool:
    """Whether a driver holds the lock; it is tried as a reader, and freed at once."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no lock file yet, or a file system without locks
        return False
    return False
