"""The experts of DELE between their two trainings, as tensors and as named arrays that can be stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from across.workers.predictors.base import PredictorInputError

Arrays: TypeAlias = Mapping[str, NDArray[np.float32]]
NUM_STEPS = "num_steps"
PARTS = ("parameters", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Experts:
    """Stacked networks with the state of their optimizer, in the order of their signals; (K, P) each."""

    signals: tuple[str, ...]
    parameters: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor
    num_steps: int

    @classmethod
    def none(cls, size: int) -> Experts:
        """K = 0 of `size` parameters each."""
        nothing = torch.empty(0, size)
        return cls((), nothing, nothing, nothing, 0)

    @classmethod
    def from_arrays(cls, arrays: Arrays, size: int) -> Experts:
        """The inverse of `arrays`; raises `PredictorInputError` for experts that do not have `size` parameters."""
        for name, values in arrays.items():
            if name != NUM_STEPS and values.shape != (size,):
                raise PredictorInputError(
                    f"{name}: a pretrained expert has {size} parameters here (got the shape {values.shape}): pretrain"
                    " with the same encoder and heads"
                )
        signals = sorted(name.removesuffix("/parameters") for name in arrays if name.endswith("/parameters"))
        if not signals:
            return cls.none(size)
        parameters, exp_avg, exp_avg_sq = (
            torch.from_numpy(np.stack([arrays[f"{signal}/{part}"] for signal in signals])) for part in PARTS
        )
        return cls(tuple(signals), parameters, exp_avg, exp_avg_sq, int(arrays[NUM_STEPS]))

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """`SIGNAL/parameters`, `SIGNAL/exp_avg` and `SIGNAL/exp_avg_sq` (P,) of each expert, and the `num_steps`."""
        arrays = {
            f"{signal}/{part}": getattr(self, part)[row].numpy().copy()
            for row, signal in enumerate(self.signals)
            for part in PARTS
        }
        return {**arrays, NUM_STEPS: np.array(self.num_steps, dtype=np.float32)}


def select_signals(arrays: Arrays, signals: Sequence[str]) -> dict[str, NDArray[np.float32]]:
    """Of `Experts.arrays()` those of some signals: what step 1 on these alone would have learned."""
    wanted = {NUM_STEPS, *(f"{signal}/{part}" for signal in signals for part in PARTS)}
    return {name: values for name, values in arrays.items() if name in wanted}
