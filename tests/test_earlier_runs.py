"""What earlier runs found guides a search, and is copied into it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import kendalltau

from across.orchestrator.config import ConfigError
from across.orchestrator.config.checks import validate_config
from across.orchestrator.config.run_config import RunConfig
from across.orchestrator.resuming import take_earlier_runs
from across.orchestrator.run_directory import RunDirectory, RunDirectoryError
from across.orchestrator.run_directory.earlier_scores import EarlierScores
from across.orchestrator.search import SearchOutcome, resume_search, run_search
from across.orchestrator.strategies.guidance.earlier_searches import MAX_LEARNED, EarlierSearches
from across.orchestrator.strategies.guidance.knowledge import SizeKnowledge
from across.search_spaces import TransNasMicroConfig
from across.search_spaces.base import Genotype
from across.search_spaces.constrained import Constrained
from tests.test_predictor_guided import proposals
from tests.test_table_search import table_config
from tests.tiny_search import SCREENED, tiny_config

SPACE = TransNasMicroConfig().build((3, 256, 256))
SIZES = SizeKnowledge(Constrained(SPACE, 0))
GUIDED: dict[str, Any] = {
    "type": "predictor_guided",
    "candidates": {"type": "exhaustive"},
    "batch_size": 6,
    "num_elites": 0,
    "num_initial": 10,
    "num_initial_from_earlier": 10,
    "num_threads": 1,
}


@dataclass(frozen=True)
class Earlier:
    """Two searches of other tasks, and the config of one that learns from them."""

    runs: tuple[Path, Path]
    config: RunConfig


@pytest.fixture(scope="module")
def earlier(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Earlier:
    runs = []
    for task in ("class_object", "room_layout"):
        runs.append(tmp_path_factory.mktemp("earlier") / task)
        config = table_config(
            shared_data, table={"tasks": [task]}, strategy=GUIDED, search={"num_generations": 6}
        )
        run_search(config, run_dir=runs[-1])
    section = {**GUIDED, "earlier_runs": [str(run) for run in runs]}
    return Earlier(
        (runs[0], runs[1]), table_config(shared_data, strategy=section, search={"num_generations": 3})
    )


def first_fitness(outcome: SearchOutcome) -> list[float]:
    return [each.fitness for each in outcome.commits[0].evaluations if each.fitness is not None]


def test_earlier_runs_find_where_to_begin(earlier: Earlier, shared_data: Path, tmp_path: Path) -> None:
    informed = run_search(earlier.config, run_dir=tmp_path / "informed")
    without = table_config(shared_data, strategy=GUIDED, search={"num_generations": 1})
    plain = run_search(without, run_dir=tmp_path / "plain")
    assert np.mean(first_fitness(informed)) > np.mean(first_fitness(plain)) + 1


def test_a_resume_does_not_need_the_earlier_runs(earlier: Earlier, tmp_path: Path) -> None:
    whole = run_search(earlier.config, run_dir=tmp_path / "whole")
    copies = [Path(shutil.copytree(run, tmp_path / "copies" / run.name)) for run in earlier.runs]
    section = earlier.config.strategy.model_copy(update={"earlier_runs": tuple(copies)})
    one = earlier.config.search.model_copy(update={"num_generations": 1})
    run_search(
        earlier.config.model_copy(update={"strategy": section, "search": one}), run_dir=tmp_path / "part"
    )
    shutil.rmtree(tmp_path / "copies")
    changes = earlier.config.model_copy(update={"strategy": section})
    assert proposals(resume_search(tmp_path / "part", changes=changes)) == proposals(whole)


def test_the_copy_is_made_once_and_guarded(earlier: Earlier, tmp_path: Path) -> None:
    run_search(earlier.config, run_dir=tmp_path / "run")
    run = RunDirectory.open(tmp_path / "run")
    taken = take_earlier_runs(run, earlier.config, SPACE)
    assert {name: len(scores) for name, scores in taken.items()} == {"class_object": 40, "room_layout": 40}
    assert all(genotype == SPACE.canonical(genotype) for genotype in taken["class_object"])
    run.earlier_scores.path.write_text("{")
    with pytest.raises(RunDirectoryError, match=r"earlier_runs.json .*restore it from a backup"):
        take_earlier_runs(run, earlier.config, SPACE)
    run.earlier_scores.path.unlink()
    with pytest.raises(RunDirectoryError, match=r"earlier_runs.json cannot be read .*restore it"):
        take_earlier_runs(run, earlier.config, SPACE)


def test_scores_come_back_in_their_order(tmp_path: Path) -> None:
    scores = {"b": {"z": 0.1, "a": -2.5}, "a": {"x": 1.0 / 3}}
    EarlierScores(tmp_path / "file").save(scores)
    loaded = EarlierScores(tmp_path / "file").load()
    assert {name: list(own.items()) for name, own in loaded.items()} == {
        name: list(own.items()) for name, own in scores.items()
    }


def test_genotypes_that_no_search_met_are_expected() -> None:
    rng = np.random.default_rng(0)
    genotypes = list({SPACE.canonical(SPACE.sample(rng)): None for _ in range(4000)})
    quality = np.array([float(sum(genotype)) for genotype in genotypes])
    scores: dict[Genotype, float] = dict(zip(genotypes[:60], quality[:60], strict=True))
    knowledge = EarlierSearches(SIZES, SPACE, {"there": scores, "empty": {}})
    expected = knowledge.earlier(genotypes[-200:])
    assert list(expected) == ["there"]
    assert kendalltau(expected["there"], quality[-200:]).statistic > 0.7
    assert knowledge.signals(genotypes[:2]).keys() == SIZES.signals(genotypes[:2]).keys()
    many = dict(zip(genotypes, -quality, strict=True)) | scores  # contradicted, but too old
    assert len(many) > MAX_LEARNED + 60
    again = EarlierSearches(SIZES, SPACE, {"there": many}).earlier(genotypes[-200:])
    assert kendalltau(again["there"], quality[-200:]).statistic < -0.9


def test_few_shot_searches_learn_from_each_other(tmp_path: Path) -> None:
    first = tiny_config(strategy=SCREENED, workers={"num_workers": 0})
    run_search(first, run_dir=tmp_path / "first")
    then = tiny_config(
        strategy={**SCREENED, "earlier_runs": [str(tmp_path / "first")]}, workers={"num_workers": 0}, seed=1
    )
    outcome = run_search(then, run_dir=tmp_path / "then")
    assert run_search(then, run_dir=tmp_path / "again").fingerprint == outcome.fingerprint


def test_what_is_wrong_with_an_earlier_run_is_said_before_anything_starts(
    earlier: Earlier, shared_data: Path, tmp_path: Path
) -> None:
    def guided(*runs: Path) -> RunConfig:
        return table_config(shared_data, strategy={**GUIDED, "earlier_runs": [str(run) for run in runs]})

    with pytest.raises(ConfigError, match=r"x.yaml: strategy.earlier_runs: .*nowhere is no run of across"):
        validate_config(guided(tmp_path / "nowhere"), origin="x.yaml")
    with pytest.raises(ConfigError, match=r"must have different names \(got class_object twice\)"):
        guided(earlier.runs[0], tmp_path / "class_object")
    with pytest.raises(
        ConfigError, match=r"class_object is among table.earlier_tasks already: rename the folder"
    ):
        table_config(
            shared_data,
            strategy=earlier.config.strategy.model_dump(),
            table={"earlier_tasks": ["class_object"]},
        )
    other = table_config(
        shared_data,
        space={"type": "nas_bench_201"},
        table={"file": shared_data / "nas_bench_201" / "nas_bench_201.npz", "tasks": ["cifar10"]},
        search={"num_generations": 1},
    )
    run_search(other, run_dir=tmp_path / "other")
    with pytest.raises(ConfigError, match=r"strategy.earlier_runs: .*other: "):
        run_search(guided(tmp_path / "other"), run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()
