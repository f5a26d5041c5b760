"""A few-shot search whose children a predictor screens by what the workers measure of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from across.orchestrator.config import ConfigError
from across.orchestrator.config.loading import check_resume_overrides, with_overrides
from across.orchestrator.forecasts import newest
from across.orchestrator.resuming import journal_changes
from across.orchestrator.run_directory import RunDirectory
from across.orchestrator.search import SearchOutcome, load_run, resume_search, run_search
from across.workers.base import SignalResult, SignalUnit
from across.workers.supernet_worker import SupernetWorker
from tests.dying_workers import dying_workers
from tests.test_search import assert_equal
from tests.tiny_search import SCREENED, run_driver, tiny_config

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

MEASURED: dict[str, Any] = {**SCREENED, "signals": {"names": ["synflow", "naswot", "params"]}}
NUM_CHILDREN = SCREENED["candidates"]["num_children"]
IN_THE_DRIVER: dict[str, Any] = {"strategy": MEASURED, "workers": {"num_workers": 0}}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def undisturbed(ray_cluster: Cluster, runs: Path) -> SearchOutcome:
    config = tiny_config(strategy=MEASURED, workers={"num_workers": 1})
    return run_search(config, run_dir=runs / "one_worker")


@pytest.mark.ray
def test_neither_the_number_of_workers_matters_nor_which_of_them_die(
    undisturbed: SearchOutcome, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(strategy=MEASURED, workers={"num_workers": 2, "max_attempts": 20})
    with dying_workers(monkeypatch) as killed:
        outcome = run_search(config, run_dir=runs / "two_workers")
    assert killed
    assert_equal(outcome, undisturbed)
    assert_equal(run_search(tiny_config(**IN_THE_DRIVER), run_dir=runs / "in_the_driver"), undisturbed)


@pytest.mark.ray
@pytest.mark.slow
def test_a_driver_killed_while_it_measures_signals_resumes_to_the_same_search(
    undisturbed: SearchOutcome, ray_cluster: Cluster, runs: Path
) -> None:
    settings: dict[str, Any] = {"strategy": MEASURED, "workers": {"num_workers": 2}}
    num_spooled_before = 3 * SCREENED["num_initial"]  # signals and two chunks of tasks each
    place = ("across.orchestrator.run_directory:RunDirectory.spool", str(num_spooled_before + 3), "after")
    killed = run_driver(runs / "killed", ray_cluster.address, *place, **settings)
    assert killed.returncode == -9, killed.stderr
    spooled = RunDirectory.open(runs / "killed").spooled(1)
    assert [type(result) for result in spooled.values()] == [SignalResult] * 3
    assert_equal(run_search(tiny_config(**settings), run_dir=runs / "killed"), undisturbed)


def test_signals_are_journaled_as_they_are_and_as_they_compare(tmp_path: Path) -> None:
    outcome = run_search(tiny_config(**IN_THE_DRIVER), run_dir=tmp_path / "run")
    for commit in outcome.commits:
        if commit.kind == "generation":
            born = [each.proposal for each in newest(commit.evaluations)]
            assert all(each.signals.keys() == each.signal_scores.keys() >= {"params"} for each in born)
            assert {each.signals["params"] for each in born} <= {
                each.metrics["params"] for each in commit.evaluations
            }
            assert all(abs(score) < 3 for each in born for score in each.signal_scores.values())


def test_signals_are_measured_of_those_alone_between_which_they_choose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of the first generation are evaluated; all children later, until the predictor stands aside."""
    measured: list[int] = []
    run = SupernetWorker.run

    def counting(self: SupernetWorker, unit: Any, weights: Any) -> Any:
        if isinstance(unit, SignalUnit):
            measured.append(unit.weights_version)
        return run(self, unit, weights)

    monkeypatch.setattr(SupernetWorker, "run", counting)
    outcome = run_search(tiny_config(**IN_THE_DRIVER), run_dir=tmp_path / "run")
    versions = [commit.weights_version for commit in outcome.commits if commit.kind == "generation"]
    expected = [SCREENED["num_initial"], NUM_CHILDREN, NUM_CHILDREN]
    assert [measured.count(version) for version in versions] == expected


def test_other_signals_on_resume_take_nothing_from_the_spool(tmp_path: Path) -> None:
    config = tiny_config(**IN_THE_DRIVER, search={"num_generations": 1})
    run, started = load_run(run_search(config, run_dir=tmp_path / "run").run_dir)
    number = len(run.commits())
    fewer = with_overrides(
        started, ["strategy.signals.max_images=10", "search.num_generations=2"], origin="run"
    )
    for changed, num_left in ((started, 1), (check_resume_overrides(started, fewer), 0)):
        with run.lock():
            run.spool(number, [SignalResult("0" * 24, {})])
            journal_changes(run, started, changed)
        assert len(run.spooled(number)) == num_left
    outcome = resume_search(run.path, changes=fewer)
    assert [commit.kind for commit in outcome.commits].count("generation") == 2
    others = with_overrides(started, ["strategy.signals.names=[synflow]"], origin="run")
    with pytest.raises(ConfigError, match=r"strategy\.signals\.names: cannot change"):
        resume_search(run.path, changes=others)
