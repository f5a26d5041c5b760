"""What stops a run of the worker pool; the search can be resumed after each of these."""

from __future__ import annotations

from across.errors import AcrossError


class PoolError(AcrossError):
    """The search cannot go on, but can be resumed; says what happened and what to do."""


class PoolExhaustedError(PoolError):
    """A unit, or the start of workers, failed too often for reasons that are not the genotype's."""


class WorkerOutOfMemoryError(PoolError):
    """A unit does not fit into the device's memory; names the setting to lower."""


class WorkerStartError(PoolError):
    """A worker could not be made on its machine; the text is that of its own error."""


class MixedDevicesError(PoolError):
    """Workers run on devices of different kinds, which the configuration does not allow."""


class NoWorkerError(PoolError):
    """For `start_timeout_seconds` there was no worker at all."""
