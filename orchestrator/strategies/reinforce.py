"""REINFORCE: Williams, 1992, "Simple statistical gradient-following algorithms", with the policy that the authors of
NAS-Bench-201 use (Dong and Yang, 2020, arXiv 2001.00326, appendix): an independent softmax a gene, Adam, and a moving
average of the rewards as baseline.

Deviations: advantages are divided by the moving standard deviation of the rewards, so that one learning rate suits
every metric. Spaces without independent genes have one softmax over all their genotypes, whose logits are linear in the
encoding; with independent genes that is the same policy. Genotypes beyond limits are drawn again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import sqrt
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from across.orchestrator.state import Evaluation, Proposal, SearchState
from across.orchestrator.strategies.base import Bred, advance, elites, propose_distinct, successful
from across.orchestrator.strategies.policies import Policy, policy_of
from across.search_spaces.base import Config, Genotype, SearchSpace

Vector = NDArray[np.float64]
ADAM_BETAS, ADAM_EPSILON = (0.9, 0.999), 1e-8


class ReinforceConfig(Config):
    """Settings of REINFORCE."""

    type: Literal["reinforce"] = "reinforce"
    population_size: int = Field(default=8, ge=1)
    """Genotypes a generation, whose gradients are averaged."""
    learning_rate: float = Field(default=0.1, gt=0)
    """Of Adam, on the policy's logits."""
    baseline_momentum: float = Field(default=0.9, ge=0, lt=1)
    """Of the moving averages of the rewards and of their squared distance from it."""

    def build(self, space: SearchSpace) -> Reinforce:
        return Reinforce(self, space)


@dataclass(frozen=True, eq=False)
class Learned:
    """What the rewards have taught so far."""

    logits: Vector
    gradient_mean: Vector
    gradient_square: Vector
    num_updates: int = 0
    reward: float = 0.0
    """Moving average."""
    variance: float = 0.0


@dataclass(frozen=True)
class Reinforce:
    """Draws from a policy and makes what was rewarded more likely; the fittest lives on to be looked at."""

    config: ReinforceConfig
    space: SearchSpace

    @cached_property
    def policy(self) -> Policy:
        """How logits become genotypes."""
        return policy_of(self.space)

    def num_new(self, state: SearchState) -> int:
        return self.config.population_size

    def ask(self, state: SearchState, rng: np.random.Generator, num: int) -> list[Proposal]:
        return propose_distinct(state, self.space, elites(state, 1), num, lambda: self.breed(state, rng), rng)

    def tell(self, state: SearchState, results: Sequence[Evaluation]) -> SearchState:
        drawn = [each for each in results if each.proposal.index >= state.next_index]
        return self._learn(advance(state, results, population=results), drawn)

    def breed(self, state: SearchState, rng: np.random.Generator) -> Bred:
        return self.policy.sample(self._learned(state).logits, rng), ()

    def absorb(self, state: SearchState, result: Evaluation) -> SearchState:
        return self._learn(advance(state, [result], population=[result]), [result])

    def sample_path(self, rng: np.random.Generator) -> Genotype:
        return self.space.sample(rng)

    def _learned(self, state: SearchState) -> Learned:
        zeros = np.zeros(self.policy.num_logits)
        return state.memory if isinstance(state.memory, Learned) else Learned(zeros, zeros, zeros)

    def _learn(self, state: SearchState, results: Sequence[Evaluation]) -> SearchState:
        """One step of Adam up the mean of advantage x gradient of the log-likelihood; failures teach nothing."""
        rewarded = successful(results)
        if not rewarded:
            return state
        old, momentum = self._learned(state), self.config.baseline_momentum
        rewards = [each.rank_key for each in rewarded]
        mean = sum(rewards) / len(rewards)
        baseline = mean if old.num_updates == 0 else momentum * old.reward + (1 - momentum) * mean
        spread = sum((reward - baseline) ** 2 for reward in rewards) / len(rewards)
        variance = spread if old.variance == 0 else momentum * old.variance + (1 - momentum) * spread
        gradient = sum(
            (
                (reward - baseline) * self.policy.gradient(old.logits, each.proposal.genotype)
                for reward, each in zip(rewards, rewarded, strict=True)
            ),
            start=np.zeros(self.policy.num_logits),
        ) / (len(rewards) * (sqrt(variance) or 1.0))
        return _stepped(state, old, gradient, baseline, variance, self.config.learning_rate)


def _stepped(
    state: SearchState, old: Learned, gradient: Vector, reward: float, variance: float, learning_rate: float
) -> SearchState:
    step = old.num_updates + 1
    first = ADAM_BETAS[0] * old.gradient_mean + (1 - ADAM_BETAS[0]) * gradient
    second = ADAM_BETAS[1] * old.gradient_square + (1 - ADAM_BETAS[1]) * gradient**2
    scaled = (first / (1 - ADAM_BETAS[0] ** step)) / (
        np.sqrt(second / (1 - ADAM_BETAS[1] ** step)) + ADAM_EPSILON
    )
    return replace(
        state, memory=Learned(old.logits + learning_rate * scaled, first, second, step, reward, variance)
    )
