"""Few-shot fitness: the score on the query sets after a few steps on the support sets."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from across.workers.adaptation import adapt
from across.workers.episode import Episode


def evaluate_few_shot(episode: Episode) -> dict[str, Tensor]:
    """Metrics on the query sets after adaptation, a value a task, (T,) each."""
    layout = episode.layout()
    with torch.no_grad():
        support, query = episode.inputs(episode.parameters)
    rates = episode.rates(episode.learned_rates(), layout)
    fast = adapt(
        partial(episode.support_losses, support), layout.replicate(episode.parameters), layout, rates
    )
    with torch.no_grad():
        outputs = episode.query_outputs(query, layout.views(fast))
        return episode.path.objective.metrics(outputs, episode.batch.query_targets)
