"""The objectives' registry: what a task wants, by the name that its TaskSpec carries."""

from __future__ import annotations

from across.workers.objectives.base import Objective
from across.workers.objectives.classification import Classification

OBJECTIVES: dict[str, Objective] = {"classification": Classification()}
