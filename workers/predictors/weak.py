"""The predictor of WeakNAS: a multilayer perceptron on the encoding.

Wu et al. 2021, "Stronger NAS with Weaker Predictors", arXiv 2102.10490: four hidden layers of 1,000 rectified units on
the one-hot encoding, regression by the squared error. What the paper leaves open is as in scikit-learn's
`MLPRegressor`, which the authors' code uses: Adam with a learning rate of 0.001, weights drawn as in Glorot & Bengio
2010, "Understanding the difficulty of training deep feedforward neural networks". Which genotypes are scored next
belongs to the search.

Deviations:
- A fixed number of steps, on small batches, instead of up to 200 epochs: about a second on one core whatever the number
  of scores, as a search fits it again and again. `num_steps` buys the difference back.
- The standard deviation, for which the authors have no use, is that of a Bayesian linear regression on the last hidden
  layer, as in Snoek et al. 2015, "Scalable Bayesian Optimization Using Deep Neural Networks" (equation 6), in the dual
  form that needs one equation a scored candidate. Its mean is not used: the prediction is the perceptron's. Prior and
  noise are fixed: the prior variance is that of the scores, on average over the scored candidates.
- Scores are standardised; there is no weight decay.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import linear, mse_loss

from search_spaces.base import Config, SearchSpace
from workers.predictors.base import Candidates, Prediction, Values
from workers.predictors.features import training_data

NOISE = 0.01
"""Variance of what the last layer cannot explain, where that of the scores is 1."""
CHUNK = 4096
"""Candidates that are predicted at a time."""


class WeakConfig(Config):
    """Settings of WeakNAS's predictor."""

    type: Literal["weak"] = "weak"
    uses_signals: bool = False
    """Whether signals and earlier scores are inputs too, beside the encoding."""
    num_layers: int = Field(default=4, ge=1)
    """Hidden ones."""
    width: int = Field(default=1000, ge=1)
    """Units of each hidden layer."""
    num_steps: int = Field(default=40, ge=1)
    """Of Adam."""
    batch_size: int = Field(default=64, ge=1)
    """Scored candidates a step."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Of Adam."""
    num_threads: int = Field(default=1, ge=1)
    """Processor threads while fitting and predicting; results may depend on it in the last bits."""

    def build(self, space: SearchSpace, *, seed: int) -> Weak:
        return Weak(self, seed)


class Weak:
    """A wide perceptron, trained for a moment."""

    def __init__(self, config: WeakConfig, seed: int) -> None:
        self.config = config
        self._seed = seed

    def fit(self, candidates: Candidates, scores: Values) -> None:
        self._training = training_data(candidates, scores, score_scale="standardised")
        inputs = self._inputs(self._training.candidates)
        targets = torch.from_numpy(self._training.scores.astype(np.float32))
        seed = int(np.random.default_rng(self._seed).integers(2**63))
        with threads(self.config.num_threads):
            self._parameters = _trained(self.config, inputs, targets, torch.Generator().manual_seed(seed))
            self._belief = _belief(_hidden(self._parameters, inputs))

    def predict(self, candidates: Candidates) -> Prediction:
        means, stds = [], []
        with threads(self.config.num_threads):
            for inputs in self._inputs(candidates).split(CHUNK):
                hidden = _hidden(self._parameters, inputs)
                means.append(_output(self._parameters, hidden).numpy())
                stds.append(self._belief.std(hidden).numpy())
        return self._training.prediction(np.concatenate(means).astype(np.float64), np.concatenate(stds))

    def _inputs(self, candidates: Candidates) -> Tensor:
        """(N, F); without signals the encoding as it is."""
        if not self.config.uses_signals:
            return torch.from_numpy(candidates.encodings.astype(np.float32))
        return torch.from_numpy(self._training.features.matrix(candidates).astype(np.float32))


@dataclass(frozen=True)
class _Belief:
    """Posterior of a linear function of H hidden units, of which N values are known."""

    seen: Tensor
    """(N, H)."""
    cholesky: Tensor
    """(N, N), of the covariance of what is known, noise included."""
    scale: Tensor
    """Of the prior variance of a weight."""

    def std(self, hidden_MH: Tensor) -> Tensor:
        """Standard deviation (M,) of the function, without noise."""
        hidden_MH = hidden_MH.double()
        covariance_NM = self.scale * self.seen @ hidden_MH.T
        explained_NM = torch.linalg.solve_triangular(self.cholesky, covariance_NM, upper=False)
        variance_M = self.scale * (hidden_MH**2).sum(dim=1) - (explained_NM**2).sum(dim=0)
        std_M: Tensor = variance_M.clamp(min=0).sqrt()
        return std_M


def _belief(seen_NH: Tensor) -> _Belief:
    """What is believed of the function once its values at `seen_NH` are known."""
    seen_NH = seen_NH.double()
    covariance_NN = seen_NH @ seen_NH.T
    scale = 1 / covariance_NN.diagonal().mean().clamp(min=torch.finfo(torch.float64).tiny)
    noise_NN = NOISE * torch.eye(len(seen_NH), dtype=torch.float64)
    return _Belief(seen_NH, torch.linalg.cholesky(scale * covariance_NN + noise_NN), scale)


def _trained(config: WeakConfig, inputs: Tensor, scores: Tensor, generator: torch.Generator) -> list[Tensor]:
    """Parameters after Adam on the squared error; inputs (N, F), scores (N,)."""
    parameters = _initial([inputs.shape[1], *[config.width] * config.num_layers, 1], generator)
    optimizer = torch.optim.Adam(parameters, lr=config.learning_rate, fused=True)
    for rows in _batches(len(inputs), config, generator):
        outputs = _output(parameters, _hidden(parameters, inputs[rows]))
        optimizer.zero_grad()
        mse_loss(outputs, scores[rows]).backward()
        optimizer.step()
    return [parameter.detach() for parameter in parameters]


def _batches(num_scores: int, config: WeakConfig, generator: torch.Generator) -> Iterator[Tensor]:
    """Rows of each step: all of them once, in random order, before any comes again."""
    step = 0
    while True:
        for rows in torch.randperm(num_scores, generator=generator).split(config.batch_size):
            if step == config.num_steps:
                return
            yield rows
            step += 1


def _initial(sizes: list[int], generator: torch.Generator) -> list[Tensor]:
    """Weight and bias of each layer, uniform within Glorot & Bengio's bound (their equation 16)."""
    parameters: list[Tensor] = []
    for num_inputs, num_outputs in pairwise(sizes):
        bound = sqrt(6 / (num_inputs + num_outputs))
        for shape in ((num_outputs, num_inputs), (num_outputs,)):
            values = (2 * torch.rand(shape, generator=generator) - 1) * bound
            parameters.append(values.requires_grad_())
    return parameters


def _hidden(parameters: list[Tensor], inputs: Tensor) -> Tensor:
    """The last hidden layer (N, H) for inputs (N, F)."""
    hidden = inputs
    for weight, bias in zip(parameters[:-2:2], parameters[1:-2:2], strict=True):
        hidden = linear(hidden, weight, bias).relu()
    return hidden


def _output(parameters: list[Tensor], hidden: Tensor) -> Tensor:
    """The prediction (N,)."""
    return linear(hidden, parameters[-2], parameters[-1])[:, 0]


@contextmanager
def threads(num_threads: int) -> Iterator[None]:
    """PyTorch computes with `num_threads` threads, and with as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
