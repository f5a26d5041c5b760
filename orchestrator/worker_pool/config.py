"""The section `workers` of the configuration."""

from __future__ import annotations

from pydantic import Field, field_validator

from across.search_spaces.base import Config


class WorkersConfig(Config):
    """How many workers run where, and how patient the pool is with them."""

    num_workers: int | None = Field(default=None, ge=0)
    """None: one a GPU, or one a CPU core in a cluster without GPU; follows the cluster's size. 0: the driver computes
    by itself, without Ray."""
    gpus_per_worker: float | None = Field(default=None, ge=0)
    """None: 1 in a cluster with GPUs, else 0. Fractions let workers share a GPU; above 1 it is a whole number."""
    cpus_per_worker: float = Field(default=1.0, gt=0)
    max_attempts: int = Field(default=5, ge=1)
    """Attempts at a unit whose actors die or do not answer in time."""
    unit_timeout_seconds: float = Field(default=600.0, gt=0)
    start_timeout_seconds: float = Field(default=300.0, gt=0)
    """Longest time without any worker."""
    allow_mixed_devices: bool = False
    """Results are equal, bit for bit, on devices of one kind only."""
    units_in_flight: int = Field(default=2, ge=1)
    """Calls a worker has at hand, so that it need not wait for the driver."""

    @field_validator("gpus_per_worker")
    @classmethod
    def _gpus_can_be_reserved(cls, value: float | None) -> float | None:
        if value is not None and value > 1 and not value.is_integer():
            raise ValueError(f"must be a whole number above 1 (got {value:g})")
        return value
