"""RunConfig: everything that decides what a search computes, in one validated tree."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from across.errors import AcrossError
from across.orchestrator.schedules import GenerationsConfig, ScheduleConfig
from across.orchestrator.strategies import StrategyConfig
from across.orchestrator.strategies.predictor_guided import PredictorGuidedConfig
from across.orchestrator.tracking.config import TrackingConfig
from across.orchestrator.worker_pool.config import WorkersConfig
from across.search_spaces import SpaceConfig
from across.search_spaces.base import Config, InputShape, SearchSpace
from across.search_spaces.constrained import Constrained
from across.workers.adaptation import InnerLoopConfig
from across.workers.base import TaskSource
from across.workers.evaluators.tabular import TableConfig
from across.workers.model import Model
from across.workers.objectives import OBJECTIVES
from across.workers.outer_optimizer import OuterOptimizerConfig
from across.workers.tasks import TaskSourceConfig


class ConstraintsConfig(Config):
    """Limits on every architecture that is proposed or trained, its head included (a table's networks without it)."""

    max_params: int | None = Field(default=None, ge=1)
    max_flops: int | None = Field(default=None, ge=1)
    """Multiply-adds on one image."""


class MetaLearningConfig(Config):
    """The outer loop within a generation."""

    steps_per_generation: int = Field(default=20, ge=0)
    warmup_steps: int = Field(default=0, ge=0)
    """Outer steps on uniformly drawn paths before the first generation's own."""
    meta_batch_size: int = Field(default=8, ge=1)
    """Tasks an outer step."""
    tasks_per_shard: int = Field(default=4, ge=1)
    """Tasks that one worker computes together, along one path."""
    population_path_probability: float = Field(default=0.5, ge=0, le=1)
    """Chance that a shard's path is a living individual, not a uniform draw."""
    multi_step_loss_steps: int = Field(default=0, ge=0)
    """Outer steps over which the multi-step loss of MAML++ fades into that of the last inner step."""
    first_order_steps: int = Field(default=0, ge=0)
    """Outer steps at the start that use first-order gradients (MAML++)."""
    optimizer: OuterOptimizerConfig = OuterOptimizerConfig()
    checkpoint_seconds: float = Field(default=15.0, gt=0)
    """How much of a meta-learning phase may be lost when the driver dies."""


class EvaluationConfig(Config):
    """Fitness: the score after adaptation, averaged over a task set that the whole generation shares."""

    num_tasks: int = Field(default=20, ge=1)
    """From the validation classes."""
    tasks_per_chunk: int | None = Field(default=None, ge=1)
    """Tasks adapted together; None: 4 on a CPU, 64 on a GPU."""


class LengthConfig(Config):
    """When a search has finished."""

    num_generations: int = Field(default=20, ge=1)
    max_seconds: float | None = Field(default=None, gt=0)
    """Wall-clock time of all generations together, looked at after each; None: no limit."""
    max_simulated_seconds: float | None = Field(default=None, gt=0)
    """Training time that a benchmark table says the evaluations would have taken, looked at after each generation."""


class TestConfig(Config):
    """The final measurement on held-out test classes."""

    num_tasks: int = Field(default=200, ge=2)
    num_finalists: int = Field(default=3, ge=1)
    """Genotypes measured: those of the best mean fitness over the last generations."""
    num_last_generations: int = Field(default=5, ge=1)


class ComputeConfig(Config):
    """What the bits of a result depend on beside the config; resolved once, when a run is created."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads_per_worker: int = Field(default=1, ge=1)
    allow_tf32: bool = False


LEARNING_SECTIONS = ("tasks", "inner_loop", "meta_learning", "evaluation", "initial_weights")
"""What only a few-shot search has."""
TABLE_INPUTS: dict[str, InputShape] = {"nas_bench_201": (3, 32, 32)}
"""The images of a benchmark, by its space; those of TransNAS-Bench-101 are 256x256."""


class InitialPopulationConfig(Config):
    """What the first generation begins with; the rest of it is the strategy's own."""

    run: Path | None = None
    """A run of the same space, whose best genotypes are taken when this one is created."""
    num_genotypes: int = Field(default=10, ge=1)
    """How many of them."""
    genotypes: tuple[str, ...] = ()
    """The genotypes themselves, the best first, as the space writes them; filled in from `run` where there is one."""

    @model_validator(mode="after")
    def _names_something(self) -> Self:
        if self.run is None and not self.genotypes:
            raise ValueError("give a run or genotypes")
        return self


def _as_section(value: Any) -> Any:
    return {"run": value} if isinstance(value, str | Path) else value


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, dict) else value


class RunConfig(Config):
    """One search."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    seed: int = Field(default=0, ge=0)
    space: SpaceConfig
    constraints: ConstraintsConfig = ConstraintsConfig()
    table: TableConfig | None = None
    """A benchmark table instead of tasks: its evaluations are looked up, and nothing is learned."""
    tasks: Annotated[tuple[TaskSourceConfig, ...], BeforeValidator(_as_list)] = Field(
        default=(), validate_default=True
    )
    """One task source, or several that meet in one search."""
    inner_loop: InnerLoopConfig = InnerLoopConfig()
    meta_learning: MetaLearningConfig = MetaLearningConfig()
    strategy: StrategyConfig
    schedule: ScheduleConfig = GenerationsConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    search: LengthConfig = LengthConfig()
    test: TestConfig = TestConfig()
    compute: ComputeConfig = ComputeConfig()
    workers: WorkersConfig = WorkersConfig()
    tracking: TrackingConfig = TrackingConfig()
    initial_weights: Path | None = None
    """A run whose meta-learned weights this one starts from: same space, sources and inner loop."""
    initial_population: Annotated[InitialPopulationConfig | None, BeforeValidator(_as_section)] = None
    """A run (its path is enough) whose best genotypes this one starts from: same space, other tasks."""

    @field_validator("tasks")
    @classmethod
    def _there_are_tasks(
        cls, tasks: tuple[TaskSourceConfig, ...], info: ValidationInfo
    ) -> tuple[TaskSourceConfig, ...]:
        if not tasks and info.data.get("table", tasks) is None:
            raise ValueError("at least one task source is needed, or the section table")
        return tasks

    @model_validator(mode="after")
    def _learns_nothing_from_a_table(self) -> Self:
        if self.table is not None:
            defaults = type(self).model_fields
            used = [name for name in LEARNING_SECTIONS if getattr(self, name) != defaults[name].get_default()]
            if used:
                raise ValueError(
                    f"{', '.join(used)}: a search of a table adapts and learns nothing; delete"
                    f" {'it' if len(used) == 1 else 'them'}, or the section table"
                )
        return self

    @model_validator(mode="after")
    def _names_each_earlier_task_once(self) -> Self:
        runs = self.strategy.earlier_runs if isinstance(self.strategy, PredictorGuidedConfig) else ()
        for run in runs:
            if self.table is not None and run.name in self.table.earlier_tasks:
                raise ValueError(
                    f"strategy.earlier_runs: {run.name} is among table.earlier_tasks already: rename the folder of the"
                    " run, or leave one of the two out"
                )
        return self

    @model_validator(mode="after")
    def _measures_signals_where_it_can(self) -> Self:
        if not isinstance(self.strategy, PredictorGuidedConfig) or self.strategy.signals is None:
            return self
        if self.table is not None:
            raise ValueError(
                "strategy.signals: a table's networks are not there to measure; delete it, and name the table's own"
                " proxies in table.signals"
            )
        self.strategy.signals.check(self.inner_loop.num_steps)
        return self

    @model_validator(mode="after")
    def _goes_one_by_one_at_fixed_weights(self) -> Self:
        if not isinstance(self.schedule, GenerationsConfig) and self.table is None:
            raise ValueError(
                f"schedule: {self.schedule.type} is for searches of a table: fitness at other weights is no"
                " guide, and weights that learn need generations"
            )
        return self

    @model_validator(mode="after")
    def _agrees_with_the_algorithm(self) -> Self:
        needs_query_loss = {
            "inner_loop.learn_inner_lrs": self.inner_loop.learn_inner_lrs,
            "meta_learning.multi_step_loss_steps": self.meta_learning.multi_step_loss_steps > 0,
        }
        wrong = [name for name, used in needs_query_loss.items() if used]
        if self.inner_loop.algorithm == "reptile" and wrong:
            raise ValueError(
                f"{', '.join(wrong)}: reptile has no query loss to learn from; use another algorithm"
            )
        return self

    @property
    def num_outer_steps(self) -> int:
        """Outer steps of the whole search."""
        per_generation = self.meta_learning.steps_per_generation
        return self.meta_learning.warmup_steps + self.search.num_generations * per_generation


def build_sources(config: RunConfig) -> tuple[TaskSource, ...]:
    """The task sources; raises `TaskDataError`, `TaskShapeError` if their images differ in shape."""
    sources = tuple(source.build() for source in config.tasks)
    shapes = {source.spec.input_shape for source in sources}
    if len(shapes) > 1:
        raise TaskShapeError(f"tasks: all sources must give images of one shape (got {sorted(shapes)})")
    return sources


class TaskShapeError(AcrossError):
    """Task sources whose images do not fit into one supernet."""


def build_space(config: RunConfig, sources: tuple[TaskSource, ...]) -> SearchSpace:
    """The search space for the sources' images, or those of the benchmark, within the configured limits."""
    shape = sources[0].spec.input_shape if sources else TABLE_INPUTS.get(config.space.type, (3, 256, 256))
    space = config.space.build(shape)
    limits = config.constraints
    if limits.max_params is None and limits.max_flops is None:
        return space
    heads = [OBJECTIVES[source.spec.objective].num_outputs(source.spec) for source in sources]
    return Constrained(space, max(heads, default=0), limits.max_params, limits.max_flops)


def build_model(config: RunConfig, space: SearchSpace, sources: tuple[TaskSource, ...]) -> Model:
    """The layout of what is meta-learned."""
    return Model(space, tuple(source.spec for source in sources), config.inner_loop)
