"""How the next genotypes are chosen. A new strategy is one file with its config, and one line here."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

from orchestrator.strategies.fixed import FixedConfig
from orchestrator.strategies.genetic import GeneticConfig
from orchestrator.strategies.random import RandomConfig
from orchestrator.strategies.regularized_evolution import RegularizedEvolutionConfig

StrategyConfig: TypeAlias = Annotated[
    GeneticConfig
    | RegularizedEvolutionConfig
    | RandomConfig
    | FixedConfig,
    Field(discriminator="type"),
]  # fmt: skip
"""Any strategy, told apart by `type`."""
