"""How the next genotypes are chosen. A new strategy is one file with its config, and one line here."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

from across.orchestrator.strategies.fixed import FixedConfig
from across.orchestrator.strategies.genetic import GeneticConfig
from across.orchestrator.strategies.local_search import LocalSearchConfig
from across.orchestrator.strategies.nsga2 import Nsga2Config
from across.orchestrator.strategies.nsga3 import Nsga3Config
from across.orchestrator.strategies.predictor_guided import PredictorGuidedConfig
from across.orchestrator.strategies.random import RandomConfig
from across.orchestrator.strategies.regularized_evolution import RegularizedEvolutionConfig
from across.orchestrator.strategies.reinforce import ReinforceConfig
from across.orchestrator.strategies.successive_halving import SuccessiveHalvingConfig

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
