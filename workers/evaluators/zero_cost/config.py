"""Which signals are computed, and on how much data."""

from __future__ import annotations

from typing import Annotated, Literal, Self, TypeAlias, get_args

from pydantic import Field, model_validator

from across.search_spaces.base import Config

SignalName: TypeAlias = Literal[
    "grad_norm",
    "snip",
    "grasp",
    "fisher",
    "plain",
    "l2_norm",
    "jacob_cov",
    "naswot",
    "epe_nas",
    "synflow",
    "zen",
    "params",
    "flops",
    "one_shot",
    "few_steps",
]
SIGNALS: tuple[SignalName, ...] = get_args(SignalName)
LOW_FIDELITY_SIGNALS: tuple[SignalName, ...] = ("one_shot", "few_steps")
"""Scores of tasks; all other signals cost a few passes of one batch of images."""
ZERO_COST_SIGNALS = tuple(name for name in SIGNALS if name not in LOW_FIDELITY_SIGNALS)


class FewStepsConfig(Config):
    """How far short of the full fitness `few_steps` stops."""

    num_steps: int = Field(default=1, ge=1)
    """Inner steps; at most those of the inner loop."""
    num_tasks: int = Field(default=4, ge=1)
    """Tasks; those of `one_shot` too."""


class SignalsConfig(Config):
    """The signals that are computed for a genotype."""

    names: Annotated[tuple[SignalName, ...], Field(min_length=1)] = ZERO_COST_SIGNALS
    num_tasks: int = Field(default=1, ge=1)
    """Tasks over which the signals that need images are averaged, each computed on one task's images."""
    max_images: int = Field(default=20, ge=2)
    """Of a task's support and query images, this many are used, evenly spaced: they lie class by class.

    `epe_nas` sees nothing where no class has two of them.
    """
    few_steps: FewStepsConfig = FewStepsConfig()

    @model_validator(mode="after")
    def _names_are_distinct(self) -> Self:
        if len(set(self.names)) < len(self.names):
            raise ValueError(f"names must be distinct (got {', '.join(self.names)})")
        return self

    @property
    def num_seeds(self) -> int:
        """Tasks that a unit must name: the first of them serve the signals that need fewer."""
        scores_tasks = not set(self.names).isdisjoint(LOW_FIDELITY_SIGNALS)
        return max(self.num_tasks, self.few_steps.num_tasks if scores_tasks else 1)

    def check(self, num_inner_steps: int) -> None:
        """Raise ValueError where `few_steps` is to take more steps than the fitness does."""
        if "few_steps" in self.names and self.few_steps.num_steps > num_inner_steps:
            raise ValueError(
                f"few_steps.num_steps: must be at most inner_loop.num_steps = {num_inner_steps}"
                f" (got {self.few_steps.num_steps})"
            )
