"""Predictors rank genotypes by what little is known. A new one is one file with its config, and one line here."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

from across.workers.predictors.across import AcrossConfig
from across.workers.predictors.dele import DeleConfig
from across.workers.predictors.gaussian_process import GaussianProcessConfig
from across.workers.predictors.trees import ExtraTreesConfig, GradientBoostingConfig
from across.workers.predictors.weak import WeakConfig

PredictorConfig: TypeAlias = Annotated[
    AcrossConfig
    | DeleConfig
    | ExtraTreesConfig
    | GradientBoostingConfig
    | GaussianProcessConfig
    | WeakConfig,
    Field(discriminator="type"),
]  # fmt: skip
"""Any predictor, told apart by `type`."""
