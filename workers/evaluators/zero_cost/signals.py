"""All wanted signals of one subnet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import isfinite

from across.workers.base import TaskBatch
from across.workers.episode import Episode
from across.workers.evaluators.zero_cost.config import LOW_FIDELITY_SIGNALS, SignalsConfig
from across.workers.evaluators.zero_cost.data_free import DATA_FREE_SIGNALS, data_free_signals
from across.workers.evaluators.zero_cost.gradients import GRADIENT_SIGNALS, gradient_signals
from across.workers.evaluators.zero_cost.jacobian import JACOBIAN_SIGNALS, jacobian_signals
from across.workers.evaluators.zero_cost.low_fidelity import low_fidelity_signals
from across.workers.evaluators.zero_cost.subnet import Subnet, subnets_of


def compute_signals(episode: Episode, settings: SignalsConfig) -> dict[str, float]:
    """The wanted signals by name; what is not defined for this subnet and task, or not finite, is absent.

    `episode` has the meta-learned weights and at least `settings.num_seeds` tasks, of which the first are used. A
    signal of several tasks is the mean of theirs, each computed on its own.

    The images are those of support and query set together: what is asked is how the network meets a task, and a
    support set alone is often a single image a class. Their labels are known, as the tasks are the ones on which, or
    beside which, the fitness is measured.
    """
    assert episode.num_tasks >= settings.num_seeds, "a unit must name a seed for each task"
    wanted = frozenset(settings.names)
    signals: dict[str, float] = {}
    zero_cost = _first_tasks(episode, settings.num_tasks)
    subnets = list(subnets_of(zero_cost, max_images=settings.max_images))
    if not wanted.isdisjoint(DATA_FREE_SIGNALS):
        signals |= data_free_signals(subnets[0], wanted)
    if not wanted.isdisjoint((*GRADIENT_SIGNALS, *JACOBIAN_SIGNALS)):
        signals |= _mean([_signals_of_task(subnet, wanted) for subnet in subnets])
    if not wanted.isdisjoint(LOW_FIDELITY_SIGNALS):
        few = _first_tasks(episode, settings.few_steps.num_tasks)
        signals |= low_fidelity_signals(few, wanted, num_steps=settings.few_steps.num_steps)
    signals |= {name: cost for name, cost in episode.path.cost.items() if name in wanted}
    return {name: signals[name] for name in settings.names if isfinite(signals.get(name, float("nan")))}


def _signals_of_task(subnet: Subnet, wanted: frozenset[str]) -> dict[str, float]:
    signals: dict[str, float] = {}
    if not wanted.isdisjoint(GRADIENT_SIGNALS):
        signals |= gradient_signals(subnet, wanted)
    if not wanted.isdisjoint(JACOBIAN_SIGNALS):
        signals |= jacobian_signals(subnet, wanted)
    return signals


def _mean(signals: Sequence[dict[str, float]]) -> dict[str, float]:
    """Of those that all tasks have."""
    return {
        name: sum(each[name] for each in signals) / len(signals)
        for name in signals[0]
        if all(name in each for each in signals)
    }


def _first_tasks(episode: Episode, num_tasks: int) -> Episode:
    batch = episode.batch
    first = TaskBatch(
        batch.spec,
        batch.support_inputs[:num_tasks],
        batch.support_targets[:num_tasks],
        batch.query_inputs[:num_tasks],
        batch.query_targets[:num_tasks],
    )
    return replace(episode, batch=first)
