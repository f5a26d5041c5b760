from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import ray
from numpy.typing import NDArray
from ray import cloudpickle
from ray.exceptions import ObjectLostError

from across.orchestrator.worker_pool.actor import RaisedError, describe_error
from across.orchestrator.worker_pool.backlog import Backlog
from across.orchestrator.worker_pool.cluster import ClusterError, NodeCapacity, WorkerShare, plan_workers
from across.orchestrator.worker_pool.config import WorkersConfig
from across.orchestrator.worker_pool.errors import (
    MixedDevicesError,
    NoWorkerError,
    PoolExhaustedError,
    WorkerOutOfMemoryError,
    WorkerStartError,
)
from across.orchestrator.worker_pool.pool import WorkerPool
from across.orchestrator.worker_pool.weight_store import UnknownVersionError
from across.workers.base import (
    EvaluationResult,
    EvaluationUnit,
    MetaResult,
    MetaUnit,
    TaskDataError,
    Unit,
    UnitResult,
    WorkerDescription,
)

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # actors cannot import the tests

# Workers: the genotype says what goes wrong, the diary who tried.

FINE, RAISES, EXITS, HANGS, OUT_OF_MEMORY, RAISES_ONCE = range(6)


class ArithmeticWorker:
    """Adds up seeds and weights, slowly while the file `slow` is there."""

    def __init__(self, folder: Path, seconds: float = 0.0) -> None:
        self._folder = folder
        self._seconds = seconds

    def describe(self) -> WorkerDescription:
        return WorkerDescription("cpu")

    def run(self, unit: Unit, weights: NDArray[np.float32] | None) -> UnitResult:
        with (self._folder / "diary").open("a") as diary:
            diary.write(f"{unit.key} {os.getpid()}\n")
        if self._seconds or (self._folder / "slow").exists():
            time.sleep(self._seconds or 0.05)
        match unit.genotype[0]:
            case n if n == RAISES:
                raise ArithmeticError(f"no sum\nfor {unit.key}")
            case n if n == RAISES_ONCE and len(attempts(self._folder, unit.key)) < 2:
                raise ArithmeticError("a broken context")
            case n if n == EXITS:
                os._exit(1)
            case n if n == HANGS:
                time.sleep(1000)
            case n if n == OUT_OF_MEMORY:
                import torch

                raise torch.cuda.OutOfMemoryError("tried to allocate 2 GiB")
        shift = 0.0 if weights is None else float(weights[0])
        return EvaluationResult(unit.key, (sum(unit.seeds) + shift,), {"pid": float(os.getpid())})


class MemoryWorker:
    """Reads all weights, and says what that did to the memory of its process."""

    def describe(self) -> WorkerDescription:
        return WorkerDescription("cpu")

    def run(self, unit: Unit, weights: NDArray[np.float32] | None) -> UnitResult:
        assert weights is not None
        before = anonymous_bytes()
        total = float(weights.sum())
        metrics = {
            "pid": float(os.getpid()),
            "copied": float(anonymous_bytes() - before),
            "writeable": float(weights.flags.writeable),
        }
        time.sleep(0.05)
        return EvaluationResult(unit.key, (total,), metrics)


class BrokenWorker:
    def __init__(self) -> None:
        raise TaskDataError("images.zip: is truncated\nfetch it again")

    def describe(self) -> WorkerDescription:
        raise AssertionError("never made")

    def run(self, unit: Unit, weights: NDArray[np.float32] | None) -> UnitResult:
        raise AssertionError("never made")


class DyingWorker(BrokenWorker):
    def __init__(self) -> None:
        os._exit(1)


class LonelyWorker(ArithmeticWorker):
    """Only the first of its folder can be made."""

    def __init__(self, folder: Path, seconds: float = 0.0) -> None:
        super().__init__(folder, seconds)
        try:
            (folder / "first").touch(exist_ok=False)
        except FileExistsError:
            time.sleep(1.0)  # the first is ready by now
            raise TaskDataError("there is another") from None


class ManyDevicesWorker(ArithmeticWorker):
    def describe(self) -> WorkerDescription:
        return WorkerDescription(f"device {os.getpid()}")


def anonymous_bytes() -> int:
    [line] = [
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon")
    ]
    return int(line.split()[1]) * 1024


def attempts(folder: Path, key: str) -> list[int]:
    """The processes that tried a unit, in order."""
    lines = [line.split() for line in (folder / "diary").read_text().splitlines()]
    return [int(pid) for tried, pid in lines if tried == key]


def read_for_ever(reference: ray.ObjectRef[NDArray[np.float32]]) -> None:
    while True:
        ray.get(reference, timeout=30)
        time.sleep(0.1)


def run_for_ever(pool: WorkerPool) -> None:
    while True:
        assert_complete([*pool.run(units(2))], 2)


def unit(number: int, behaviour: int = FINE, version: int = 0) -> EvaluationUnit:
    return EvaluationUnit(f"unit-{number}", (behaviour,), 0, "validation", (number, 2 * number), version)


def units(count: int) -> list[EvaluationUnit]:
    return [unit(number) for number in range(count)]


def assert_complete(results: Sequence[UnitResult], count: int) -> None:
    assert len(results) == count
    found = {result.key: result.scores for result in results if isinstance(result, EvaluationResult)}
    assert found == {f"unit-{number}": (3.0 * number,) for number in range(count)}


@pytest.fixture
def make_pool(ray_cluster: Cluster, tmp_path: Path) -> Iterator[Callable[..., WorkerPool]]:
    pools = []

    def make(
        num_workers: int | None = 1,
        *,
        seconds: float = 0.0,
        worker: type = ArithmeticWorker,
        **settings: object,
    ) -> WorkerPool:
        config = WorkersConfig.model_validate({"num_workers": num_workers, **settings})
        has_folder = issubclass(worker, ArithmeticWorker)
        pool = WorkerPool(worker, {"folder": tmp_path, "seconds": seconds} if has_folder else {}, config)
        pools.append(pool)
        return pool

    yield make
    for pool in pools:
        pool.close()


# Rules that need no Ray.


def raised(kind: str = "E (here)", *, out_of_memory: bool = False) -> RaisedError:
    return RaisedError(kind, f"text of {kind}", "explained", out_of_memory, "here")


def test_group_shares_weights_and_leaves_out_tasks_that_run_alone() -> None:
    backlog = Backlog([unit(0), unit(1), unit(2, version=1), unit(3, version=1)], max_attempts=3)

    first = backlog.take(10, for_fresh_actor=True)
    backlog.interrupted(first, "the actor died")
    groups = [backlog.take(10, for_fresh_actor=False) for _ in range(4)]

    assert [task.unit.key for task in first] == ["unit-0", "unit-1"]
    keys = [[task.unit.key for task in group] for group in groups]
    assert keys == [["unit-0"], ["unit-1"], ["unit-2", "unit-3"], []]
    assert [task.num_attempts for task in first] == [0, 0]


def test_task_that_raised_goes_to_a_fresh_actor_only() -> None:
    backlog = Backlog([unit(0)], max_attempts=3)
    [task] = backlog.take(1, for_fresh_actor=False)

    assert backlog.raised(task, raised()) is None
    assert backlog.take(1, for_fresh_actor=False) == []
    assert backlog.take(1, for_fresh_actor=True) == [task]
    assert backlog.raised(task, raised()) == EvaluationResult("unit-0", (), failure="text of E (here)")
    assert backlog.num_open == 0


def test_failed_meta_unit_has_no_gradient() -> None:
    backlog = Backlog([MetaUnit("shard", (0,), 0, (1, 2, 3), 0)], max_attempts=3)
    [task] = backlog.take(1, for_fresh_actor=True)
    backlog.raised(task, raised())
    backlog.take(1, for_fresh_actor=True)

    result = backlog.raised(task, raised())

    assert isinstance(result, MetaResult)
    assert (result.gradient, result.num_tasks, result.failure) == (None, 3, "text of E (here)")


def test_errors_that_differ_each_time_are_no_property_of_the_genotype() -> None:
    backlog = Backlog([unit(0)], max_attempts=3)
    [task] = backlog.take(1, for_fresh_actor=True)
    for kind in ("A", "B"):
        assert backlog.raised(task, raised(kind)) is None
        backlog.take(1, for_fresh_actor=True)

    with pytest.raises(PoolExhaustedError, match=r"unit-0.*3 attempts.*text of C"):
        backlog.raised(task, raised("C"))


def test_out_of_memory_twice_names_the_setting_of_the_kind_of_unit() -> None:
    for kind, setting in (
        (unit(0), "evaluation.tasks_per_chunk"),
        (MetaUnit("s", (0,), 0, (1,), 0), "meta_learning"),
    ):
        backlog = Backlog([kind], max_attempts=5)
        [task] = backlog.take(1, for_fresh_actor=True)
        assert backlog.raised(task, raised(out_of_memory=True)) is None
        with pytest.raises(WorkerOutOfMemoryError, match=setting):
            backlog.raised(task, raised(out_of_memory=True))


def test_units_with_the_same_key_are_refused() -> None:
    with pytest.raises(ValueError, match="keys"):
        Backlog([unit(0), unit(0)], max_attempts=1)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (RuntimeError("CUDA error: out of memory\nmore"), True),
        (RuntimeError("shapes differ"), False),
        (ValueError("CUDA error: out of memory"), False),
    ],
)
def test_out_of_memory_is_recognised(error: Exception, expected: bool) -> None:
    assert describe_error(error).is_out_of_memory is expected


def test_share_of_a_worker_follows_the_cluster() -> None:
    def plan(nodes: list[NodeCapacity], count: int | None, gpus: float | None) -> tuple[float, int]:
        share = plan_workers(nodes, num_workers=count, gpus_per_worker=gpus, cpus_per_worker=1)
        return share.gpus, sum(share.num_fitting(node) for node in nodes)

    mixed = [NodeCapacity(4, 0), NodeCapacity(16, 2)]
    assert plan([NodeCapacity(4, 0)], None, None) == (0, 4)
    assert plan(mixed, None, None) == (1, 2)
    assert plan(mixed, None, 0.1) == (0.1, 16)
    assert plan([NodeCapacity(64, 1)], 10, 0.1) == (0.1, 10)
    with pytest.raises(
        ClusterError, match=r"3 workers with 1 GPU.*2 GPU and 20 CPU on 2 node.*room for 2.*num_workers"
    ):
        plan(mixed, 3, None)
    with pytest.raises(ClusterError, match="gpus_per_worker"):
        plan([NodeCapacity(4, 0)], None, 1)


def test_address_where_nobody_answers_is_a_clear_error() -> None:
    script = """
from across.orchestrator.worker_pool.cluster import ClusterError, connect
for address in ("127.0.0.1:9", "localhost:port", "no-such-host.invalid", "ray://127.0.0.1:10001"):
    try:
        connect(address)
    except ClusterError as error:
        print(address in str(error))
"""
    process = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )

    assert process.stdout.split() == ["True"] * 4


# Real actors.


@pytest.mark.ray
@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_each_unit_once_for_any_number_of_workers(
    make_pool: Callable[..., WorkerPool], num_workers: int
) -> None:
    with make_pool(num_workers, seconds=0.005, worker=ManyDevicesWorker, allow_mixed_devices=True) as pool:
        num_before = 0
        while len(pool.workers) < num_workers:
            assert_complete([*pool.run(units(5))], 5)
            num_before += 5
        results = [*pool.run(units(300))]

        assert_complete(results, 300)
        assert len({r.metrics["pid"] for r in results if isinstance(r, EvaluationResult)}) == num_workers
        assert len({worker.device for worker in pool.workers}) == num_workers
        assert (pool.statistics.num_units, pool.statistics.num_failures) == (num_before + 300, 0)
        assert pool.statistics.busy_seconds > 300 * 0.005


@pytest.mark.ray
def test_actors_killed_at_random_change_nothing(make_pool: Callable[..., WorkerPool]) -> None:
    rng = random.Random(0)
    killed: set[int] = set()
    results: list[UnitResult] = []
    with make_pool(2, seconds=0.01) as pool:
        for result in pool.run(units(400)):
            results.append(result)
            alive = {worker.pid for worker in pool.workers} - killed
            if alive and len(killed) < 3 and rng.random() < 0.1:
                victim = rng.choice(sorted(alive))
                os.kill(victim, signal.SIGKILL)
                killed.add(victim)
        failures = pool.statistics.num_failures

    assert_complete(results, 400)
    assert killed
    assert failures >= 1


@pytest.mark.ray
def test_unit_that_raises_fails_after_two_fresh_actors_and_harms_no_other(
    make_pool: Callable[..., WorkerPool], tmp_path: Path
) -> None:
    work = [*units(30), unit(30, RAISES), unit(31, RAISES_ONCE)]
    with make_pool(2) as pool:
        results = {result.key: result for result in pool.run(work)}

    assert len(results) == len(work)
    assert [key for key, result in results.items() if result.failure] == ["unit-30"]
    failure = results["unit-30"].failure
    assert failure is not None
    assert failure.startswith("ArithmeticError: no sum for unit-30 (test_worker_pool:")
    assert failure.endswith("in run)")
    assert len(set(attempts(tmp_path, "unit-30"))) == len(attempts(tmp_path, "unit-30")) == 2
    assert len(set(attempts(tmp_path, "unit-31"))) == 2


@pytest.mark.ray
def test_unit_that_kills_its_actor_each_time_stops_the_run(
    make_pool: Callable[..., WorkerPool], tmp_path: Path
) -> None:
    results: list[UnitResult] = []
    with (
        make_pool(1, max_attempts=2) as pool,
        pytest.raises(PoolExhaustedError, match=r"unit-4 .*2 attempts.*resume"),
    ):
        results.extend(pool.run([*units(4), unit(4, EXITS)]))

    assert all(result.failure is None for result in results)
    assert len(set(attempts(tmp_path, "unit-4"))) >= 2


@pytest.mark.ray
def test_unit_that_never_ends_stops_the_run_and_names_the_limit(make_pool: Callable[..., WorkerPool]) -> None:
    with (
        make_pool(1, max_attempts=2, unit_timeout_seconds=1) as pool,
        pytest.raises(PoolExhaustedError, match=r"unit-1 .*no result within 1 s .*unit_timeout_seconds"),
    ):
        [*pool.run([unit(0), unit(1, HANGS)])]


@pytest.mark.ray
def test_device_memory_exhausted_twice_stops_the_run(make_pool: Callable[..., WorkerPool]) -> None:
    with (
        make_pool(1) as pool,
        pytest.raises(WorkerOutOfMemoryError, match=r"unit-0 .*2 tasks.*tasks_per_chunk"),
    ):
        [*pool.run([unit(0, OUT_OF_MEMORY)])]


@pytest.mark.ray
def test_worker_that_cannot_be_made_shows_its_own_error(make_pool: Callable[..., WorkerPool]) -> None:
    with make_pool(1, worker=BrokenWorker) as pool, pytest.raises(WorkerStartError) as caught:
        [*pool.run(units(1))]

    assert str(caught.value).endswith(" cannot be made: images.zip: is truncated\nfetch it again")


@pytest.mark.ray
def test_worker_that_cannot_be_made_stops_no_other(
    make_pool: Callable[..., WorkerPool], caplog: pytest.LogCaptureFixture
) -> None:
    with make_pool(2, worker=LonelyWorker, seconds=0.2, max_attempts=1) as pool:
        assert_complete([*pool.run(units(30))], 30)
        assert pool.statistics.num_workers == 1
        assert pool.statistics.num_failures >= 2

    assert "The search goes on with 1" in caplog.text
    assert "there is another" in caplog.text


@pytest.mark.ray
def test_workers_that_die_while_they_start_are_not_restarted_for_ever(
    make_pool: Callable[..., WorkerPool],
) -> None:
    with (
        make_pool(1, worker=DyingWorker, max_attempts=2) as pool,
        pytest.raises(PoolExhaustedError, match="2 workers in a row"),
    ):
        pool.wait_for_worker()


@pytest.mark.ray
def test_no_worker_in_time_is_an_error(make_pool: Callable[..., WorkerPool]) -> None:
    with (
        make_pool(1, start_timeout_seconds=0.01) as pool,
        pytest.raises(NoWorkerError, match="start_timeout_seconds"),
    ):
        [*pool.run(units(1))]


@pytest.mark.ray
def test_devices_of_different_kinds_are_refused(make_pool: Callable[..., WorkerPool]) -> None:
    with (
        make_pool(2, worker=ManyDevicesWorker) as pool,
        pytest.raises(MixedDevicesError, match="allow_mixed_devices"),
    ):
        run_for_ever(pool)


@pytest.mark.parametrize(
    ("gpus", "expected"), [(0.0, 64), (0.4, 16), (0.5, 16), (1 / 3, 24), (1.0, 8), (2.0, 4), (3.0, 2)]
)
def test_a_fraction_of_a_gpu_lies_on_one_gpu(gpus: float, expected: int) -> None:
    assert WorkerShare(cpus=1.0, gpus=gpus).num_fitting(NodeCapacity(cpus=64, gpus=8)) == expected


def test_parts_of_several_gpus_cannot_be_reserved() -> None:
    with pytest.raises(ValueError, match="whole number above 1"):
        WorkersConfig(gpus_per_worker=1.5)


@pytest.mark.ray
def test_more_workers_than_fit_are_refused_before_anything_starts(
    make_pool: Callable[..., WorkerPool],
) -> None:
    with pytest.raises(ClusterError, match=r"100 workers .*num_workers"):
        make_pool(100)


@pytest.mark.ray
def test_weights_are_read_in_place(make_pool: Callable[..., WorkerPool]) -> None:
    weights = np.ones(10_000_000, dtype=np.float32)
    with make_pool(2, worker=MemoryWorker) as pool:
        pool.publish(0, weights)
        weights[:] = 2.0  # what was published does not change
        results: list[EvaluationResult] = []
        while len({result.metrics["pid"] for result in results}) < 2:
            results += [result for result in pool.run(units(4)) if isinstance(result, EvaluationResult)]

    assert {result.scores for result in results} == {(10_000_000.0,)}
    assert {result.metrics["writeable"] for result in results} == {0.0}
    assert max(result.metrics["copied"] for result in results) < weights.nbytes / 10


@pytest.mark.ray
def test_two_versions_are_kept_and_a_lost_one_is_published_again(
    make_pool: Callable[..., WorkerPool],
) -> None:
    class Owner:
        def put(self) -> list[ray.ObjectRef[NDArray[np.float32]]]:
            return [ray.put(np.zeros(1000, dtype=np.float32))]

    with make_pool(1) as pool:
        for version in (1, 2, 3):
            pool.publish(version, np.full(1000, version, dtype=np.float32))
        found = {result.key: result for result in pool.run([unit(2, version=2), unit(3, version=3)])}
        with pytest.raises(UnknownVersionError, match=r"version 1 is not published.*2, 3"):
            [*pool.run([unit(1, version=1)])]

        owner: Any = ray.remote(Owner)
        handle = owner.options(num_cpus=0).remote()
        [lost] = ray.get(handle.put.remote())
        ray.kill(handle)
        with pytest.raises(ObjectLostError):
            read_for_ever(lost)
        versions = pool._weights._versions
        versions[3] = replace(versions[3], reference=lost)
        [result] = pool.run([unit(5, version=3)])
        failures = pool.statistics.num_failures

    assert isinstance(found["unit-2"], EvaluationResult)
    assert found["unit-2"].scores == (3 * 2 + 2.0,)
    assert isinstance(result, EvaluationResult)
    assert result.scores == (3 * 5 + 3.0,)
    assert failures == 1


@pytest.mark.ray
def test_who_waits_for_results_sees_the_workers_at_work(make_pool: Callable[..., WorkerPool]) -> None:
    with make_pool(2, seconds=0.5) as pool:
        while pool.statistics.num_workers < 2:
            list(pool.run(units(1)))
        looks = [(len(arrived), pool.statistics.num_busy) for arrived in pool.collect(units(3))]

    assert sum(num_arrived for num_arrived, _ in looks) == 3
    assert (0, 2) in looks, "both workers were busy and nothing had arrived"
    assert looks[-1] == (1, 0), "the last result left nobody at work"


@pytest.mark.ray
def test_run_left_early_stops_busy_workers_and_the_pool_goes_on(make_pool: Callable[..., WorkerPool]) -> None:
    def interrupt() -> None:
        for _ in pool.run([*units(4), unit(4, HANGS)]):
            raise KeyboardInterrupt

    with make_pool(1) as pool:
        pids = {pool.wait_for_worker().pid}
        with pytest.raises(KeyboardInterrupt):
            interrupt()
        assert_complete([*pool.run(units(3))], 3)
        pids |= {worker.pid for worker in pool.workers}

    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}/cmdline").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}/cmdline").exists() for pid in pids)


@pytest.mark.ray
def test_node_that_comes_is_used_and_node_that_goes_loses_nothing(
    make_pool: Callable[..., WorkerPool], ray_cluster: Cluster, tmp_path: Path
) -> None:
    slow = tmp_path / "slow"
    slow.touch()
    results, node, is_removed = [], None, False
    with make_pool(None, cpus_per_worker=4) as pool:
        for result in pool.run(units(1500)):
            results.append(result)
            if node is None:
                assert len(pool.workers) == 1
                node = ray_cluster.add_node(num_cpus=4, object_store_memory=100 * 2**20)
            elif (
                not is_removed
                and len({r.metrics["pid"] for r in results if isinstance(r, EvaluationResult)}) == 2
            ):
                ray_cluster.remove_node(node, allow_graceful=False)
                is_removed = True
            elif pool.statistics.num_failures:
                slow.unlink(missing_ok=True)

    assert is_removed
    assert not slow.exists(), "the lost actor was noticed"
    assert_complete(results, 1500)
