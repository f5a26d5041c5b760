"""DELE: Zhao et al. 2023, "Dynamic Ensemble of Low-Fidelity Experts" (arXiv 2302.00932).

Each expert, an encoder of its own and a head, first learns to rank a pool by one low-fidelity signal (step 1). Then a
gating network with an encoder of its own weighs the experts candidate by candidate, score = Σ g_k(x) s_k(x), and both
learn to rank the few true scores (step 2). All experts compute and train as one stacked network.

Deviations: equivalent candidates of a pool are one, with the mean of their signals; dropped units are the same in all
experts; pairs whose order is unknown, since a signal is missing, teach nothing, and a signal that tells no candidates
apart has no expert. Where no signal is known a single network learns from the scores alone, as does the paper's
baseline. Predictions are those of the weights' mean over the last epochs (Izmailov et al. 2018, "Averaging Weights
Leads to Wider Optima and Better Generalization"). Heads are narrower, batches smaller and epochs fewer than in the
paper: as good on NAS-Bench-201, in a small part of the time; the paper's are settings. The spread of the experts serves
as standard deviation, which the paper does not have.

Shapes: K experts, N or B candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from search_spaces.base import Config, SearchSpace
from search_spaces.constrained import unconstrained
from search_spaces.edge_cell import EdgeCell
from workers.predictors.base import Candidates, Prediction, Values, check_scores
from workers.predictors.ranking import draw_pairs, ranking_losses
from workers.predictors.stacked import (
    Encoder,
    Gates,
    Head,
    Lstm,
    Mlp,
    Networks,
    Parameters,
)

EncoderName: TypeAlias = Literal["gates", "lstm", "mlp"]
MIN_STD = 1e-3
PREDICTED_AT_ONCE = 2048


class EncoderError(ValueError):
    """An encoder that does not suit the space."""


class DeleConfig(Config):
    """Settings of DELE."""

    type: Literal["dele"] = "dele"
    encoder: EncoderName | None = None
    """None: gates in spaces of cells, lstm where genotypes have a fixed length, else mlp."""
    signals: tuple[str, ...] | None = None
    """One expert each; None: all that the pool has."""
    ensemble: Literal["gated", "static"] = "gated"
    """static: the same weights for every candidate (an ablation of the paper)."""
    num_pretraining_epochs: int = Field(default=40, ge=0)
    """Of step 1; the paper has 200, in batches of 512."""
    num_epochs: int = Field(default=100, ge=1)
    """Of step 2; the paper has 200."""
    num_averaged_epochs: int = Field(default=80, ge=1)
    """The last ones, whose weights are averaged; 1: none."""
    batch_size: int = Field(default=128, ge=2)
    learning_rate: float = Field(default=1e-3, gt=0)
    head_widths: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (128, 128, 128)
    """The paper has 5 x 300."""
    dropout: float = Field(default=0.1, ge=0, lt=1)

    def build(self, space: SearchSpace, *, seed: int) -> Dele:
        return Dele(self, space, seed)


class Dele:
    """K stacked experts and a gate."""

    def __init__(self, config: DeleConfig, space: SearchSpace, seed: int) -> None:
        self.config = config
        self._space = space
        self._seed = seed
        self._encoder = _encoder(config.encoder, space)
        self._expert_head = Head(self._encoder.num_features, 1, config.head_widths, config.dropout)
        self._arrays: dict[str, NDArray[np.float32]] | None = None

    def pretrain(self, pool: Candidates) -> None:
        """Step 1 of each signal of `pool` that tells candidates apart."""
        self._arrays = self._trained_on_signals(pool)

    def _trained_on_signals(self, pool: Candidates) -> dict[str, NDArray[np.float32]]:
        generator = _generator(self._seed, 1)
        wanted = self._wanted(pool)
        if not wanted:
            return {}
        inputs, targets_KN = self._distinct(pool, np.stack(list(wanted.values())))
        experts = Networks.made(self._encoder, self._expert_head, len(wanted), generator)
        optimizer = _optimizer(experts.parameters, self.config.learning_rate)
        for _ in range(self.config.num_pretraining_epochs):
            for rows in torch.randperm(len(inputs), generator=generator).split(self.config.batch_size):
                scores_KB = experts(inputs[rows], generator)[..., 0]
                pairs = draw_pairs(len(rows), generator)
                _step(optimizer, ranking_losses(scores_KB, targets_KN[:, rows], pairs).sum())
        return _saved(list(wanted), experts.parameters, optimizer)

    def pretrained(self) -> dict[str, NDArray[np.float32]]:
        """Weights and optimizer moments of the experts, `SIGNAL/PART/NAME` each; empty without any signal."""
        return dict(self._arrays or {})

    def load_pretrained(self, arrays: Mapping[str, NDArray[np.float32]]) -> None:
        """Take the experts of `arrays` that `signals` names: a part of them is what it would be, trained alone."""
        wanted = self.config.signals
        self._arrays = {
            name: values for name, values in arrays.items() if wanted is None or name.split("/")[0] in wanted
        }

    def fit(self, candidates: Candidates, scores: Values) -> None:
        """Step 2; without `pretrain` before it, step 1 is on the signals of `candidates` themselves."""
        check_scores(candidates, scores)
        arrays = self._trained_on_signals(candidates) if self._arrays is None else self._arrays
        generator = _generator(self._seed, 2)
        self._experts, moments = self._restored(arrays, generator)
        num_experts = self._experts.head_parameters["layer0.bias"].shape[0]
        gate = Head(self._encoder.num_features, num_experts, self.config.head_widths, self.config.dropout)
        self._gate = Networks.made(self._encoder, gate, 1, generator)
        self._weights = {"static.bias": torch.zeros(num_experts)}
        optimizer = _optimizer(self._experts.parameters, self.config.learning_rate, moments)
        if num_experts > 1:
            judge = self._gate.parameters if self.config.ensemble == "gated" else self._weights
            optimizer.add_param_group({"params": [each.requires_grad_() for each in judge.values()]})
        inputs, targets = self._inputs(candidates), torch.from_numpy(scores).float()[None]
        learned = [each for group in optimizer.param_groups for each in group["params"]]
        averages: list[Tensor] = []
        for epoch in range(self.config.num_epochs):
            for rows in torch.randperm(len(inputs), generator=generator).split(self.config.batch_size):
                mixed, _ = self._mixed(inputs[rows], generator)
                pairs = draw_pairs(len(rows), generator)
                _step(optimizer, ranking_losses(mixed[None], targets[:, rows], pairs).sum())
            num_averaged = epoch + 1 - max(0, self.config.num_epochs - self.config.num_averaged_epochs)
            if num_averaged == 1:
                averages = [each.detach().clone() for each in learned]
            elif num_averaged > 1:
                torch._foreach_lerp_(averages, [each.detach() for each in learned], 1 / num_averaged)
        with torch.no_grad():
            for each, average in zip(learned, averages, strict=True):
                each.copy_(average)

    def predict(self, candidates: Candidates) -> Prediction:
        distinct, positions = torch.unique(self._inputs(candidates), dim=0, return_inverse=True)
        with torch.no_grad():
            parts = [self._mixed(chunk, None) for chunk in distinct.split(PREDICTED_AT_ONCE)]
        mean, std = (torch.cat(part)[positions].double().numpy() for part in zip(*parts, strict=True))
        return Prediction(mean, std + MIN_STD)

    def _mixed(self, inputs: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """The score of each candidate and the spread of the experts around it, (B,) each."""
        scores_KB = self._experts(inputs, generator)[..., 0]
        if len(scores_KB) == 1:
            return scores_KB[0], torch.zeros_like(scores_KB[0])
        if self.config.ensemble == "gated":
            shares_KB = self._gate(inputs, generator)[0].softmax(dim=-1).T
        else:
            shares_KB = self._weights["static.bias"].softmax(dim=0)[:, None].expand_as(scores_KB)
        mean = (shares_KB * scores_KB).sum(dim=0)
        return mean, (shares_KB * (scores_KB - mean) ** 2).sum(dim=0).clamp_min(0).sqrt()

    def _restored(
        self, arrays: Mapping[str, NDArray[np.float32]], generator: torch.Generator
    ) -> tuple[Networks, dict[str, dict[str, Tensor]]]:
        """The experts as step 1 left them, with their moments; without signals one new network."""
        if not arrays:
            return Networks.made(self._encoder, self._expert_head, 1, generator), {}
        stacked: dict[str, dict[str, Tensor]] = {"value": {}, "exp_avg": {}, "exp_avg_sq": {}, "step": {}}
        signals = dict.fromkeys(name.split("/")[0] for name in arrays)
        for part, found in stacked.items():
            names = [
                name.split("/")[2] for name in arrays if name.startswith(f"{next(iter(signals))}/{part}/")
            ]
            for name in names:
                rows = [torch.from_numpy(np.array(arrays[f"{signal}/{part}/{name}"])) for signal in signals]
                found[name] = rows[0] if part == "step" else torch.stack(rows)
        moments = {
            name: {part: stacked[part][name] for part in ("exp_avg", "exp_avg_sq", "step")}
            for name in stacked["value"]
        }
        return Networks.of(self._encoder, self._expert_head, stacked["value"]), moments

    def _wanted(self, pool: Candidates) -> dict[str, Values]:
        """Signals scaled to 0..1, NaN where unknown."""
        found = {}
        for name, values in pool.signals.items():
            known = values[np.isfinite(values)]
            is_chosen = self.config.signals is None or name in self.config.signals
            if is_chosen and known.size and known.min() < known.max():
                found[name] = (values - known.min()) / (known.max() - known.min())
        return found

    def _distinct(self, pool: Candidates, wanted_KN: Values) -> tuple[Tensor, Tensor]:
        """Inputs of the different candidates, and the mean signals of those that are equal."""
        distinct, positions = torch.unique(self._inputs(pool), dim=0, return_inverse=True)
        is_known = np.isfinite(wanted_KN)
        sums, counts = (
            np.stack([np.bincount(positions.numpy(), row, len(distinct)) for row in rows])
            for rows in (np.where(is_known, wanted_KN, 0.0), is_known)
        )
        means = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
        return distinct, torch.from_numpy(means).float()

    def _inputs(self, candidates: Candidates) -> Tensor:
        if isinstance(self._encoder, Mlp):
            return torch.from_numpy(candidates.encodings)
        return torch.tensor([self._space.canonical(genotype) for genotype in candidates.genotypes])


def _encoder(name: EncoderName | None, space: SearchSpace) -> Encoder:
    """The encoder of that name, or the one that suits the space; raises `EncoderError`."""
    bare = unconstrained(space)
    cell = getattr(bare, "cell", None)
    cardinalities: tuple[int, ...] | None = getattr(bare, "cardinalities", None)
    if name is None:
        name = "gates" if isinstance(cell, EdgeCell) else "lstm" if cardinalities else "mlp"
    match name:
        case "gates" if isinstance(cell, EdgeCell):
            return Gates(cell.num_operations)
        case "lstm" if cardinalities:
            return Lstm(max(cardinalities))
        case "mlp":
            return Mlp(space.encoding_dim)
    needed = "cells with operations on edges" if name == "gates" else "a fixed number of genes"
    raise EncoderError(f"predictor.encoder: {name} is for spaces of {needed}: use another, or leave it out")


def _generator(seed: int, step: int) -> torch.Generator:
    """The random stream of step 1 or 2."""
    return torch.Generator().manual_seed(int(np.random.default_rng((seed, step)).integers(2**63)))


def _optimizer(
    parameters: Parameters, learning_rate: float, moments: Mapping[str, Mapping[str, Tensor]] | None = None
) -> torch.optim.Adam:
    optimizer = torch.optim.Adam(
        [each.requires_grad_() for each in parameters.values()], lr=learning_rate, fused=True
    )
    for name, each in parameters.items():
        if moments:
            optimizer.state[each] = dict(moments[name])
    return optimizer


def _step(optimizer: torch.optim.Adam, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def _saved(
    signals: Sequence[str], parameters: Parameters, optimizer: torch.optim.Adam
) -> dict[str, NDArray[np.float32]]:
    """One array a signal, part and parameter, so that experts can be taken out one by one."""
    arrays: dict[str, NDArray[np.float32]] = {}
    for name, value in parameters.items():
        state = optimizer.state.get(value, {})
        for row, signal in enumerate(signals):
            arrays[f"{signal}/value/{name}"] = value.detach()[row].numpy().copy()
            for moment in ("exp_avg", "exp_avg_sq"):
                moments = state.get(moment, torch.zeros_like(value))
                arrays[f"{signal}/{moment}/{name}"] = moments[row].numpy().copy()
            arrays[f"{signal}/step/{name}"] = np.array(float(state.get("step", 0.0)), dtype=np.float32)
    return arrays
