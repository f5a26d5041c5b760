"""DELE: Zhao et al. 2023, "Dynamic Ensemble of Low-Fidelity Experts" (arXiv 2302.00932).

Each expert, an encoder and a head of its own, first learns to rank a pool by one low-fidelity signal (step 1). Then a
gating network with an encoder of its own weighs the experts candidate by candidate, score = Σ g_k(x) s_k(x), and both
learn to rank the few true scores (step 2), with the state that the experts' optimizer had. All experts train as one
stacked network; since they share nothing and Adam works element by element, each is what it would be alone.

Where no signal is known a single network learns from the scores alone, the paper's "vanilla" baseline; with one signal
it is the paper's pretrained and fine-tuned predictor.

Deviations:

- Step 2 starts from what the scores say of each expert as a whole: one that ranks them in reverse is turned around, and
  its logit begins at the agreement of the two rankings (`trust`), not at random. Experts leave step 1 with scores of
  one deviation, so that the margin is the same share of each.
- The mixed score is that of the mean of the weights over the last epochs (Izmailov et al. 2018, "Averaging Weights
  Leads to Wider Optima and Better Generalization"), since single epochs of step 2 differ.
- Narrower heads, smaller batches and fewer epochs than published: as good on NAS-Bench-201 in a small part of the time.
  Many more steps on the signals make experts that few scores no longer change, and a worse predictor.
- In the GATES encoder the input node alone keeps what it has from layer to layer: with such a residual of every node it
  ranks no better.
- Candidates of the pool that compute the same function are one, with the mean of their signals.
- A candidate of a batch is computed once, not anew for each pair; experts drop the same units and see the same pairs.
- Signals and scores count by their ranks: the loss sees nothing else, and ranks are exact in single precision.
- Scores on earlier tasks are signals of this one.
- Signals may be missing: an expert sees only candidates whose signal is known, repeated to the length of an epoch. A
  signal that tells no candidates apart has no expert.
- The standard deviation, which the paper does not have, is the weighted spread of the experts around the mixed score,
  plus the margin of the loss, below which differences mean nothing.

Shapes: K experts, k either K or 1, P parameters of one, N or B candidates, I inputs of one.
"""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from typing import Annotated, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from across.errors import AcrossError
from across.search_spaces.base import Config, SearchSpace
from across.search_spaces.constrained import unconstrained
from across.search_spaces.edge_cell import EdgeCell
from across.workers.predictors.base import Candidates, Prediction, PredictorInputError, Values, check_scores
from across.workers.predictors.experts import PARTS, Arrays, Experts, select_signals
from across.workers.predictors.ranking import (
    MARGIN,
    Ranks,
    draw_pairs,
    epoch_rows,
    mean_by,
    ranking_losses,
    ranks_of,
    trust,
)
from across.workers.predictors.stacked import (
    Encoder,
    Ensemble,
    GatesEncoder,
    LstmEncoder,
    MlpEncoder,
    Network,
)

EncoderName: TypeAlias = Literal["gates", "lstm", "mlp"]
PREDICTED_AT_ONCE = 1024
SMALLEST_DEVIATION = 1e-6


class EncoderError(AcrossError):
    """An encoder that does not suit the space; says which do."""


class DeleConfig(Config):
    """Settings of DELE."""

    type: Literal["dele"] = "dele"
    encoder: EncoderName | None = None
    """None: gates where the space has a cell with operations on its edges, else lstm."""
    signals: tuple[str, ...] | None = None
    """One expert each, earlier tasks as earlier/TASK; None: all that the pool knows; an empty list: vanilla."""
    ensemble: Literal["gated", "static"] = "gated"
    """static: learned weights that are the same for every candidate (an ablation of the paper)."""
    num_pretraining_epochs: int = Field(default=40, ge=0)
    """Of step 1. The paper: 200, in batches of 512."""
    num_epochs: int = Field(default=100, ge=1)
    """Of step 2. The paper: 200, and 100 within a search."""
    num_averaged_epochs: int = Field(default=60, ge=1)
    """The last ones of step 2, whose weights are averaged. The paper: 1."""
    batch_size: int = Field(default=128, ge=2)
    learning_rate: float = Field(default=1e-3, gt=0)
    """Of Adam."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """In the heads."""
    head_widths: tuple[Annotated[int, Field(ge=1)], ...] | None = None
    """None: 3 x 128 behind gates and mlp, where the paper has 5 x 300, and a linear head behind lstm."""

    def build(self, space: SearchSpace, *, seed: int) -> Dele:
        """Raises `EncoderError`."""
        return Dele(self, space, seed=seed)


class Dele:
    """Experts on signals, mixed by what few scores say."""

    def __init__(self, config: DeleConfig, space: SearchSpace, *, seed: int) -> None:
        self.config = config
        self._space = space
        self._seed = seed
        encoder = _encoder(config.encoder, space)
        default = () if isinstance(encoder, LstmEncoder) else (128,) * 3
        self._expert = Network(encoder, default if config.head_widths is None else config.head_widths)
        self._experts: Experts | None = None

    def pretrain(self, pool: Candidates) -> None:
        """Step 1 on the signals of `pool`; raises `PredictorInputError` for one that only the settings know."""
        self._experts = self._learn_signals(pool)

    def pretrained(self) -> dict[str, NDArray[np.float32]]:
        """The experts, as `Experts.arrays` names them."""
        return (self._experts or self._none()).arrays()

    def load_pretrained(self, arrays: Arrays) -> None:
        """The inverse of `pretrained`, without experts of signals that the settings leave out.

        Raises `PredictorInputError` for experts of another structure.
        """
        chosen = arrays if self.config.signals is None else select_signals(arrays, self.config.signals)
        self._experts = Experts.from_arrays(chosen, self._expert.size)

    def fit(self, candidates: Candidates, scores: Values) -> None:
        """Step 2; without `pretrain` before it, step 1 is on the signals of `candidates` themselves."""
        check_scores(candidates, scores)
        experts = self._learn_signals(candidates) if self._experts is None else self._experts
        inputs_NI, values = self._inputs(candidates), np.asarray(scores, dtype=np.float64)
        order = np.lexsort((values, *inputs_NI.numpy().T))  # what is learned is a function of the set
        ranks_1N = torch.from_numpy(ranks_of(values[order]))[None]
        self._ensemble = self._learn_scores(experts, inputs_NI[order], ranks_1N)

    def predict(self, candidates: Candidates) -> Prediction:
        """Mixed scores, and the spread of the experts around them."""
        distinct_BI, positions = torch.unique(self._inputs(candidates), dim=0, return_inverse=True)
        means, stds = [], []
        with torch.no_grad():
            for inputs_BI in distinct_BI.split(PREDICTED_AT_ONCE):
                scores_KB, weights_KB = self._ensemble.scores(inputs_BI)
                means.append((weights_KB * scores_KB).sum(0))
                stds.append((weights_KB * (scores_KB - means[-1]) ** 2).sum(0).sqrt() + MARGIN)
        mean, std = (torch.cat(parts)[positions].double().numpy() for parts in (means, stds))
        return Prediction(mean, std)

    def _learn_signals(self, pool: Candidates) -> Experts:
        """Step 1."""
        inputs_NI, positions = torch.unique(self._inputs(pool), dim=0, return_inverse=True)
        columns = self._columns(pool, positions.numpy(), len(inputs_NI))
        if not columns:
            return self._none()
        values_KN = torch.from_numpy(np.stack(list(columns.values())))
        drawn = [self._expert.draw(self._generator(f"expert {signal}")) for signal in columns]
        parameters_KP = torch.stack(drawn).requires_grad_()
        optimizer = torch.optim.Adam([parameters_KP], lr=self.config.learning_rate, fused=True)
        generator, num_steps = self._generator("step 1"), 0
        for _ in range(self.config.num_pretraining_epochs):
            for rows_kB in epoch_rows(values_KN, generator).split(self.config.batch_size, dim=1):
                if rows_kB.shape[1] < 2:
                    continue
                kept = self._expert.draw_kept(rows_kB.shape[1], self.config.dropout, generator)
                scores_KB = self._expert(parameters_KP, inputs_NI[rows_kB], kept)[..., 0]
                values_KB = values_KN.gather(1, rows_kB.expand(len(values_KN), -1))
                pairs = draw_pairs(rows_kB.shape[1], generator)
                _step(optimizer, ranking_losses(scores_KB, values_KB, pairs).sum())
                num_steps += 1
        state, nothing = optimizer.state[parameters_KP], torch.zeros_like(parameters_KP)
        exp_avg, exp_avg_sq = (state.get(part, nothing).detach() for part in PARTS[1:])
        with torch.no_grad():
            parts = [
                self._expert(parameters_KP, rows[None])[..., 0] for rows in inputs_NI.split(PREDICTED_AT_ONCE)
            ]
            deviations_K = torch.cat(parts, dim=1).std(dim=1, correction=0)
            of_one_deviation = self._expert.scaled(
                parameters_KP, 1 / deviations_K.clamp_min(SMALLEST_DEVIATION)
            )
        return Experts(tuple(columns), of_one_deviation, exp_avg, exp_avg_sq, num_steps)

    def _learn_scores(self, experts: Experts, inputs_NI: Tensor, values_1N: Tensor) -> Ensemble:
        """Step 2."""
        ensemble, config = self._trusting(experts, inputs_NI, values_1N), self.config
        optimizer = torch.optim.Adam(
            [each.requires_grad_() for each in ensemble.learned], lr=config.learning_rate, fused=True
        )
        if experts.num_steps:
            optimizer.state[ensemble.expert_parameters] = {
                "step": torch.tensor(float(experts.num_steps)),
                "exp_avg": experts.exp_avg.clone(),
                "exp_avg_sq": experts.exp_avg_sq.clone(),
            }
        generator = self._generator("step 2")
        first = max(0, config.num_epochs - config.num_averaged_epochs)
        averages = [each.detach().clone() for each in ensemble.learned]
        for epoch in range(config.num_epochs):
            for rows in torch.randperm(len(inputs_NI), generator=generator).split(config.batch_size):
                if len(rows) < 2:
                    continue
                kept = [self._expert.draw_kept(len(rows), config.dropout, generator) for _ in range(2)]
                scores_KB, weights_KB = ensemble.scores(inputs_NI[rows], kept)
                mixed_1B = (weights_KB * scores_KB).sum(0, keepdim=True)
                pairs = draw_pairs(len(rows), generator)
                _step(optimizer, ranking_losses(mixed_1B, values_1N[:, rows], pairs).sum())
            if epoch >= first:
                for average, each in zip(averages, ensemble.learned, strict=True):
                    average.lerp_(each.detach(), 1 / (epoch - first + 1))
        return ensemble.with_learned(averages)

    def _trusting(self, experts: Experts, inputs_NI: Tensor, values_1N: Tensor) -> Ensemble:
        """Copies of the experts, a new one without any; and a gate, or logits, that begin at what they are trusted."""
        num = len(experts.signals)
        if num == 0:
            single_1P = self._expert.draw(self._generator("vanilla"))[None]
            return Ensemble(self._expert, None, single_1P, torch.zeros(1))
        with torch.no_grad():
            trust_K = trust(self._expert(experts.parameters, inputs_NI[None])[..., 0], values_1N[0])
        parameters_KP = self._expert.scaled(experts.parameters, torch.where(trust_K < 0, -1.0, 1.0))
        if self.config.ensemble == "static":
            return Ensemble(self._expert, None, parameters_KP, trust_K.abs())
        gate = replace(self._expert, num_outputs=num)
        drawn_1P = gate.draw(self._generator("gate"))[None]
        drawn_1P[:, -num:] = trust_K.abs()
        return Ensemble(self._expert, gate, parameters_KP, drawn_1P)

    def _columns(self, pool: Candidates, positions: NDArray[np.intp], num: int) -> dict[str, Ranks]:
        """Ranks (num,) by signal, sorted, of those that tell candidates apart; equal candidates have the mean."""
        known = {**pool.signals, **{f"earlier/{task}": scores for task, scores in pool.earlier.items()}}
        wanted = sorted(known if self.config.signals is None else set(self.config.signals))
        lacking = [name for name in wanted if name not in known]
        if lacking:
            raise PredictorInputError(
                f"signals: no {', '.join(lacking)}; the candidates have {', '.join(sorted(known)) or 'none'}"
            )
        found = {name: ranks_of(mean_by(positions, known[name], num)) for name in wanted}
        return {name: ranks for name, ranks in found.items() if np.nanmax(ranks, initial=0) > 0}

    def _inputs(self, candidates: Candidates) -> Tensor:
        """What the encoder takes, (N, I): encodings, or canonical genotypes with -1 after the end."""
        if isinstance(self._expert.encoder, MlpEncoder):
            return torch.from_numpy(candidates.encodings)
        genotypes = [self._space.canonical(genotype) for genotype in candidates.genotypes]
        length = max(map(len, genotypes), default=0)
        return torch.tensor([(*genes, *[-1] * (length - len(genes))) for genes in genotypes])

    def _generator(self, purpose: str) -> torch.Generator:
        """A random stream of its own: an expert's does not depend on which others there are."""
        digest = sha256(f"{self._seed} {purpose}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))

    def _none(self) -> Experts:
        return Experts.none(self._expert.size)


def _encoder(name: EncoderName | None, space: SearchSpace) -> Encoder:
    bare = unconstrained(space)
    cell = getattr(bare, "cell", None)
    if name is None:
        name = "gates" if isinstance(cell, EdgeCell) else "lstm"
    if name == "mlp":
        return MlpEncoder(space.encoding_dim)
    if name == "lstm":
        cardinalities: tuple[int, ...] | None = getattr(bare, "cardinalities", None)
        return LstmEncoder(max(cardinalities) if cardinalities else space.encoding_dim + 1)
    if isinstance(cell, EdgeCell):
        return GatesEncoder(cell.num_operations)
    raise EncoderError(
        f"encoder: gates is for spaces of a cell with operations on its edges, which {type(bare).__name__} is not: use"
        " lstm or mlp"
    )


def _step(optimizer: torch.optim.Adam, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
