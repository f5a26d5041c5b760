"""One path of the supernet on one batch of tasks: what the inner and the outer loop compute with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from across.search_spaces.supernet import fold_tasks
from across.workers.adaptation import FastWeights
from across.workers.base import TaskBatch
from across.workers.model import RATE_PREFIX, Model, Path, slices


@dataclass(frozen=True)
class Episode:
    """One path on one batch of tasks, ready to compute."""

    model: Model
    path: Path
    parameters: Mapping[str, Tensor]
    """Everything that the path uses of the meta-learned vector, shared by all tasks."""
    batch: TaskBatch
    memory_format: torch.memory_format

    @property
    def num_tasks(self) -> int:
        return self.batch.num_tasks

    def layout(self) -> FastWeights:
        return FastWeights(self.model.adapted(self.path), self.num_tasks)

    def support_losses(self, support: Tensor, fast: Mapping[str, Tensor]) -> Tensor:
        """Support loss of each task (T,), `support` being folded images or, head-only, fixed features."""
        outputs = self._outputs(support, fast, num_reference=None)
        return self.path.objective.loss(outputs, self.batch.support_targets)

    def query_outputs(self, query: Tensor, fast: Mapping[str, Tensor]) -> Tensor:
        """The head's outputs on the query images (T, B, num_outputs), `query` being that of `inputs`."""
        if self.model.inner_loop.adapts_head_only:
            return self.path.outputs(fast, query)
        return self._outputs(query, fast, num_reference=self._num_reference)[:, self._num_reference or 0 :]

    @property
    def _num_reference(self) -> int | None:
        """Images before the query images that alone give the batch statistics; None: there are no such."""
        is_transductive = self.model.inner_loop.batch_norm == "transductive"
        return None if is_transductive else self.batch.support_inputs.shape[1]

    def _outputs(self, images: Tensor, fast: Mapping[str, Tensor], num_reference: int | None) -> Tensor:
        if self.model.inner_loop.adapts_head_only:
            return self.path.outputs(fast, images)
        values = self.path.features(fast, images, num_tasks=self.num_tasks, num_reference=num_reference)
        return self.path.outputs(fast, values)

    def inputs(self, body: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """What the support and the query losses read: folded images, or features where the body stays fixed."""
        support = fold_tasks(self.batch.support_inputs, self.memory_format)
        query_inputs = self.batch.query_inputs
        if self._num_reference is not None:
            query_inputs = torch.cat([self.batch.support_inputs, query_inputs], dim=1)
        query = fold_tasks(query_inputs, self.memory_format)
        if not self.model.inner_loop.adapts_head_only:
            return support, query
        features = partial(self.path.features, body, num_tasks=self.num_tasks)
        of_query = features(query, num_reference=self._num_reference)
        return features(support, num_reference=None), of_query[:, self._num_reference or 0 :]

    def rates(self, learned: Tensor | None, layout: FastWeights) -> list[Tensor | float]:
        """The rate of each inner step; `learned` is (T, number of adapted parameters, K), in units of `inner_lr`."""
        if learned is None:
            return [self.model.inner_loop.inner_lr] * self.model.inner_loop.num_steps
        rates = self.model.inner_loop.inner_lr * learned
        return [layout.spread(rates[:, :, step]) for step in range(rates.shape[2])]

    def learned_rates(self) -> Tensor | None:
        """One copy a task of the learned inner rates of the adapted parameters, (T, L, K)."""
        if not self.model.inner_loop.learn_inner_lrs:
            return None
        names = self.model.adapted(self.path)
        rates = torch.stack([self.parameters[f"{RATE_PREFIX}{name}"] for name in names])
        return rates.expand(self.num_tasks, *rates.shape).clone()


def prepare_episode(
    model: Model, path: Path, vector: Tensor, batch: TaskBatch, memory_format: torch.memory_format
) -> Episode:
    """Cut what `path` uses out of the meta-learned vector."""
    return Episode(model, path, slices(model.index, vector, model.active(path)), batch, memory_format)
