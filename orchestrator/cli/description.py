"""What a config would search, in a few lines."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from across.orchestrator.config.checks import SearchParts
from across.orchestrator.config.run_config import RunConfig
from across.orchestrator.problem import FewShotProblem
from across.search_spaces.base import SearchSpace
from across.search_spaces.constrained import Constrained
from across.workers.base import TaskSource
from across.workers.evaluators.tabular import TableConfig
from across.workers.tasks.episodes import SPLITS, ImageTasks


def describe(config: RunConfig, parts: SearchParts) -> Iterator[tuple[str, str]]:
    """Names and texts, in the order in which they are read."""
    problem = parts.problem
    yield "search", f"{config.name}, seed {config.seed}"
    yield "space", f"{config.space.type}, {_size(problem.space)}{_limits(config)}"
    if isinstance(problem, FewShotProblem):
        yield from _few_shot(config, problem)
    if config.table is not None:
        yield "table", _table(config.table)
    yield "strategy", f"{config.strategy.type}, {_evaluations(config)}"
    if config.table is None:
        tasks = f"{config.test.num_tasks:,} tasks of unseen classes"
        yield "test", f"{config.test.num_finalists} finalists on {tasks}"


def _few_shot(config: RunConfig, problem: FewShotProblem) -> Iterator[tuple[str, str]]:
    yield "supernet", f"{problem.model.index.size:,} parameters, heads included"
    for settings, source in zip(config.tasks, problem.sources, strict=True):
        yield "tasks", f"{settings.type}, {_tasks(source)}"
    yield "inner loop", _inner_loop(config)
    yield "meta-learning", _meta_learning(config)


def _table(table: TableConfig) -> str:
    metric = table.reward.metric or "the usual metric"
    return (
        f"{table.file}: {metric} ({table.reward.epoch}) on {', '.join(table.tasks)}; fitness: {table.fitness}"
    )


def _size(space: SearchSpace) -> str:
    """Known for spaces whose genotypes are independent choices."""
    inner = space.space if isinstance(space, Constrained) else space
    cardinalities: tuple[int, ...] | None = getattr(inner, "cardinalities", None)
    channels, height, width = space.input_shape
    images = f"images of {height}x{width}, {channels} channel{'s' if channels > 1 else ''}"
    return images if cardinalities is None else f"{prod(cardinalities):,} genotypes, {images}"


def _limits(config: RunConfig) -> str:
    limits = config.constraints.model_dump(exclude_none=True)
    return "".join(f", {name} {value:,}" for name, value in limits.items())


def _tasks(source: TaskSource) -> str:
    spec = source.spec
    shape = f"{spec.num_ways}-way {spec.num_shots}-shot, {spec.num_queries} queries a class"
    if not isinstance(source, ImageTasks):
        return f"{shape}, endless classes"
    counts = [
        f"{len(source.data.splits[split]) * source.data.num_turns(split):,} {split}" for split in SPLITS
    ]
    return f"{shape}; classes: {', '.join(counts)}"


def _inner_loop(config: RunConfig) -> str:
    loop = config.inner_loop
    rates = "learned rates from" if loop.learn_inner_lrs else "rate"
    return (
        f"{loop.algorithm}, {loop.num_steps} steps, {rates} {loop.inner_lr:g}, {loop.batch_norm} batch norm"
    )


def _meta_learning(config: RunConfig) -> str:
    meta, optimizer = config.meta_learning, config.meta_learning.optimizer
    return (
        f"{config.num_outer_steps:,} outer steps of {meta.meta_batch_size} tasks ({meta.warmup_steps:,} before the"
        f" first generation, {meta.steps_per_generation:,} in each), {optimizer.type} {optimizer.outer_lr:g},"
        f" {optimizer.schedule}"
    )


def _evaluations(config: RunConfig) -> str:
    population = getattr(config.strategy, "population_size", 1)
    generations = config.search.num_generations
    proposals = f"{generations:,} generations of {population:,} genotypes"
    if config.table is not None:
        return proposals
    num_tasks = config.evaluation.num_tasks * len(config.tasks)
    return f"{proposals} on {num_tasks:,} tasks each: {generations * population * num_tasks:,} adaptations"
