"""The fitness on fewer tasks with fewer inner steps, and with none."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from across.workers.episode import Episode
from across.workers.evaluators.few_shot import evaluate_few_shot
from across.workers.model import RATE_PREFIX


def low_fidelity_signals(episode: Episode, wanted: Collection[str], *, num_steps: int) -> dict[str, float]:
    """Mean scores on the episode's query sets.

    `one_shot` has had no step: body and head are the supernet's (Bender et al. 2018, "Understanding and Simplifying
    One-Shot Architecture Search"). Where each task numbers its classes anew, no head is right for all, and its
    accuracy is about chance. `few_steps` comes after `num_steps` of the inner loop's steps.
    """
    wanted_steps = {"one_shot": 0, "few_steps": num_steps}
    return {name: _score(episode, steps) for name, steps in wanted_steps.items() if name in wanted}


def _score(episode: Episode, num_steps: int) -> float:
    metrics = evaluate_few_shot(stopped_early(episode, num_steps))
    return float(metrics[episode.path.objective.score].double().mean())


def stopped_early(episode: Episode, num_steps: int) -> Episode:
    """The episode with the first `num_steps` inner steps of its own."""
    inner_loop = episode.model.inner_loop
    assert num_steps <= inner_loop.num_steps, "there are no rates for more steps"
    parameters = {
        name: value[:num_steps] if name.startswith(RATE_PREFIX) else value
        for name, value in episode.parameters.items()
    }
    model = replace(episode.model, inner_loop=inner_loop.model_copy(update={"num_steps": num_steps}))
    return replace(episode, model=model, parameters=parameters)
