"""The driver as its own worker: the rules of the pool, without Ray."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from across.orchestrator.worker_pool.config import WorkersConfig
from across.orchestrator.worker_pool.errors import WorkerOutOfMemoryError, WorkerStartError
from across.orchestrator.worker_pool.in_process import InProcessPool
from across.workers.base import EvaluationResult, EvaluationUnit, Unit, UnitResult, WorkerDescription


def units(*genes: int) -> list[EvaluationUnit]:
    return [EvaluationUnit(f"unit-{gene}", (gene,), 0, "validation", (0,), 0) for gene in genes]


class Fussy:
    """Raises on some genotypes; how often each worker was used is seen in `made`."""

    made = 0

    def __init__(
        self, fails_on: Sequence[int] = (), fails_once_on: Sequence[int] = (), error: str = ""
    ) -> None:
        if error == "start":
            raise ValueError("the table is missing")
        Fussy.made += 1
        self._number = Fussy.made
        self._fails_on, self._fails_once_on, self._error = fails_on, fails_once_on, error

    def describe(self) -> WorkerDescription:
        return WorkerDescription("cpu")

    def run(self, unit: Unit, weights: NDArray[np.float32] | None) -> UnitResult:
        (gene,) = unit.genotype
        if gene in self._fails_on or (gene in self._fails_once_on and self._number == 1):
            raise MemoryError("no memory") if self._error == "memory" else KeyError(gene)
        assert weights is not None
        return EvaluationResult(unit.key, (float(weights[0]) + gene,))


@pytest.fixture(autouse=True)
def _no_worker_yet() -> None:
    Fussy.made = 0


def pool(**arguments: object) -> InProcessPool:
    made = InProcessPool(Fussy, arguments, WorkersConfig(num_workers=0))
    made.publish(0, np.array([100.0], np.float32))
    return made


def collected(made: InProcessPool, wanted: Sequence[Unit]) -> dict[str, UnitResult]:
    return {result.key: result for results in made.collect(wanted) for result in results}


def test_units_are_computed_at_the_published_weights() -> None:
    with pool() as made:
        results = collected(made, units(*range(200)))
        assert results["unit-7"] == EvaluationResult("unit-7", (107.0,))
        assert len(results) == 200
        assert (made.statistics.num_units, made.statistics.num_failures, made.statistics.num_workers) == (
            200,
            0,
            1,
        )
        assert made.wait_for_worker().device == "cpu"


def test_what_raises_twice_on_fresh_workers_is_a_failure_of_its_genotype_alone() -> None:
    made = pool(fails_on=(3,))
    results = collected(made, units(*range(6)))
    failed = results.pop("unit-3")
    assert isinstance(failed, EvaluationResult)
    assert failed.scores == ()
    assert failed.failure is not None
    assert failed.failure.startswith("KeyError: 3")
    assert all(isinstance(each, EvaluationResult) and each.failure is None for each in results.values())
    assert Fussy.made == 3


def test_what_raises_once_is_tried_again() -> None:
    results = collected(pool(fails_once_on=(2,)), units(1, 2, 3))
    assert results["unit-2"] == EvaluationResult("unit-2", (102.0,))


def test_memory_is_no_fitness() -> None:
    with pytest.raises(WorkerOutOfMemoryError, match=r"evaluation\.tasks_per_chunk"):
        collected(pool(fails_on=(3,), error="memory"), units(*range(6)))


def test_units_can_be_added_while_results_come() -> None:
    made, seen = pool(), []
    for results in made.collect(units(0)):
        for result in results:
            seen.append(result.key)
            if len(seen) < 5:
                made.extend(units(len(seen)))
    assert seen == [f"unit-{gene}" for gene in range(5)]


def test_a_worker_that_cannot_be_made_says_why() -> None:
    with pytest.raises(WorkerStartError, match="the table is missing"):
        pool(error="start")
