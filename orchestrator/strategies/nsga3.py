"""NSGA-III: Deb and Jain, 2014, "An Evolutionary Many-Objective Optimization Algorithm Using Reference-Point-Based
Nondominated Sorting Approach, Part I".

As NSGA-II, but survivors of the last front are chosen so that all reference directions are served: for three objectives
and more, where hardly anything dominates anything. Deviation: the ideal and nadir points are those of the present
population, not of all that ever lived; what a generation does follows from its population alone.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field
from pymoo.algorithms.moo.nsga3 import ReferenceDirectionSurvival
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.util.ref_dirs import get_reference_directions

from across.orchestrator.objectives import Costs
from across.orchestrator.strategies.nsga2 import BreedingConfig, MultiObjective, Survival
from across.search_spaces.base import SearchSpace


class Nsga3Config(BreedingConfig):
    """Settings of NSGA-III."""

    type: Literal["nsga3"] = "nsga3"
    num_partitions: int = Field(default=6, ge=1)
    """Reference directions lie on the unit simplex at steps of 1/num_partitions (Das and Dennis, 1998)."""

    def build(self, space: SearchSpace) -> MultiObjective:
        return MultiObjective(self, space, survive_by_directions(len(self.objectives), self.num_partitions))


def survive_by_directions(num_objectives: int, num_partitions: int) -> Survival:
    """Survival by fronts, and within the last by the least served reference directions."""
    directions = get_reference_directions("das-dennis", num_objectives, n_partitions=num_partitions)

    def survive(matrix: Costs, num: int, rng: np.random.Generator) -> list[int]:
        population = Population.new("F", matrix, "position", np.arange(len(matrix)))
        survivors = ReferenceDirectionSurvival(directions).do(
            Problem(n_obj=num_objectives), population, n_survive=min(num, len(matrix)), random_state=rng
        )
        ordered = sorted(
            survivors, key=lambda each: (each.get("rank"), each.get("dist_to_niche"), each.get("position"))
        )
        return [int(each.get("position")) for each in ordered]

    return survive
