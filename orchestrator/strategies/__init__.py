"""How the next genotypes are chosen. A new strategy is one file with its config, and one line here."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

from orchestrator.strategies.fixed import FixedConfig
from orchestrator.strategies.genetic import GeneticConfig
from orchestrator.strategies.local_search import LocalSearchConfig
from orchestrator.strategies.nsga2 import Nsga2Config
from orchestrator.strategies.nsga3 import Nsga3Config
from orchestrator.strategies.predictor_guided import PredictorGuidedConfig
from orchestrator.strategies.random import RandomConfig
from orchestrator.strategies.regularized_evolution import RegularizedEvolutionConfig
from orchestrator.strategies.reinforce import ReinforceConfig
from orchestrator.strategies.successive_halving import SuccessiveHalvingConfig

StrategyConfig: TypeAlias = Annotated[
    GeneticConfig
    | RegularizedEvolutionConfig
    | LocalSearchConfig
    | ReinforceConfig
    | SuccessiveHalvingConfig
    | PredictorGuidedConfig
    | Nsga2Config
    | Nsga3Config
    | RandomConfig
    | FixedConfig,
    Field(discriminator="type"),
]  # fmt: skip
"""Any strategy, told apart by `type`."""
