"""The pool's actors: as many as the cluster has room for, replaced when they are lost."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from across.orchestrator.worker_pool.actor import (
    ActorDescription,
    RaisedError,
    Worker,
    WorkerActor,
    describe_error,
)
from across.orchestrator.worker_pool.backlog import Task
from across.orchestrator.worker_pool.cluster import living_nodes, plan_workers
from across.orchestrator.worker_pool.config import WorkersConfig
from across.orchestrator.worker_pool.errors import (
    MixedDevicesError,
    NoWorkerError,
    PoolExhaustedError,
    WorkerStartError,
)

FOLLOW_SECONDS = 1.0
"""Least time between two looks at the cluster's size."""
FETCH_SECONDS = 60.0
"""Longest wait for a result that is ready, on its way between nodes."""
PAUSE_SECONDS = 60.0
"""Without starts, after many have failed while other workers are at work."""

_logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Call:
    """Tasks that an actor was sent in one call."""

    tasks: list[Task]
    reference: ray.ObjectRef[Any]


@dataclass(eq=False)
class Actor:
    """One actor and the calls that it has not answered, in the order in which it runs them."""

    handle: Any
    starting: ray.ObjectRef[Any]
    started_at: float
    description: ActorDescription | None = None
    """None until its worker is made."""
    calls: deque[Call] = field(default_factory=deque)
    head_since: float = 0.0
    """When the first of `calls` became the first."""
    is_fresh: bool = True
    """Nothing was sent to it yet."""

    @property
    def has_suspect(self) -> bool:
        """Whether it runs a task that has raised before, and after which it may not be trusted."""
        return any(task.errors for call in self.calls for task in call.tasks)


class ActorFleet:
    """Starts and stops actors; raises `ClusterError` when those that `config` asks for do not fit."""

    def __init__(
        self,
        worker_class: Callable[..., Worker],
        worker_arguments: Mapping[str, object],
        config: WorkersConfig,
    ) -> None:
        self._worker_class = worker_class
        self._worker_arguments = dict(worker_arguments)
        self._config = config
        self._share = plan_workers(
            living_nodes(),
            num_workers=config.num_workers,
            gpus_per_worker=config.gpus_per_worker,
            cpus_per_worker=config.cpus_per_worker,
        )
        self.actors: list[Actor] = []
        self.num_failures = 0
        self._num_failed_starts = 0
        self._start_again_at = -math.inf
        self._num_wanted = 0
        self._followed_at = -FOLLOW_SECONDS
        self._last_with_actor = time.monotonic()
        self._device: str | None = None

    @property
    def ready(self) -> list[Actor]:
        """The actors whose worker is made."""
        return [actor for actor in self.actors if actor.description]

    @property
    def expects_fresh_actor(self) -> bool:
        """Whether an actor that has run nothing yet is there, or should soon be."""
        since = time.monotonic() - self._config.start_timeout_seconds
        return any(
            actor.is_fresh and (actor.description or actor.started_at > since) for actor in self.actors
        )

    def follow_cluster(self) -> None:
        """Have as many actors as fit into the cluster as it is now, up to `num_workers`."""
        if time.monotonic() - self._followed_at >= FOLLOW_SECONDS:
            fitting = sum(self._share.num_fitting(node) for node in living_nodes())
            self._num_wanted = min(fitting, self._config.num_workers or fitting)
            self._followed_at = time.monotonic()
        for actor in [actor for actor in self.actors if actor.description is None]:
            if len(self.actors) > self._num_wanted:
                self.stop(actor)
        while len(self.actors) < self._num_wanted and time.monotonic() >= self._start_again_at:
            self._start()

    def stop(self, actor: Actor) -> None:
        """Kill `actor`; its calls remain for the caller to take back."""
        self.actors.remove(actor)
        if ray.is_initialized():
            ray.kill(actor.handle)

    def give_up(self, actor: Actor) -> None:
        """Kill `actor` because something went wrong with it."""
        self.num_failures += 1
        self.stop(actor)

    def welcome(self, actor: Actor) -> None:
        """Take an actor that has answered its start into service, or see why it did not start."""
        try:
            outcome: ActorDescription | RaisedError = ray.get(actor.starting, timeout=FETCH_SECONDS)
        except RayTaskError as error:  # its class or arguments cannot be loaded on that machine
            outcome = describe_error(error.cause)
        except RayError as error:
            self._failed_to_start(actor, reason(error))
            return
        if isinstance(outcome, ActorDescription):
            self._check_device(outcome)
            actor.description = outcome
            self._num_failed_starts = 0
        elif (
            outcome.is_out_of_memory or self.ready
        ):  # its predecessor may still be on the device; others are fine
            self._failed_to_start(actor, f"on {outcome.hostname}: {outcome.text}")
        else:
            raise WorkerStartError(f"a worker on {outcome.hostname} cannot be made: {outcome.explanation}")

    def expect_actors(self) -> None:
        """Begin to count the time without any actor."""
        self._last_with_actor = time.monotonic()

    def check_actors(self) -> None:
        """Raise `NoWorkerError` after `start_timeout_seconds` without any actor."""
        limit = self._config.start_timeout_seconds
        if self.ready:
            self._last_with_actor = time.monotonic()
        elif time.monotonic() - self._last_with_actor > limit:
            raise NoWorkerError(
                f"no worker was ready for {limit:g} s (workers.start_timeout_seconds); the cluster has room for"
                f" {self._num_wanted}. See `ray status` for what holds them back, and resume"
            )

    def _start(self) -> None:
        options: dict[str, Any] = {
            "num_cpus": self._share.cpus,
            "num_gpus": self._share.gpus,
            "max_restarts": 0,
            "max_task_retries": 0,
            "max_concurrency": 1,
        }
        actor_class: Any = ray.remote(**options)(WorkerActor)
        handle = actor_class.remote()
        starting = handle.start.remote(self._worker_class, self._worker_arguments)
        self.actors.append(Actor(handle, starting, started_at=time.monotonic()))

    def _check_device(self, description: ActorDescription) -> None:
        self._device = self._device or description.device
        if description.device != self._device and not self._config.allow_mixed_devices:
            raise MixedDevicesError(
                f"a worker on {description.hostname} runs on {description.device}, the others on"
                f" {self._device}: results would depend on who computed them. Use nodes of one kind, or set"
                " workers.allow_mixed_devices to true"
            )

    def _failed_to_start(self, actor: Actor, why: str) -> None:
        self.give_up(actor)
        self._num_failed_starts += 1
        if self._num_failed_starts < self._config.max_attempts * max(1, self._num_wanted):
            return
        if not self.ready:
            raise PoolExhaustedError(
                f"{self._num_failed_starts} workers in a row died while they started; the last one: {why}. See"
                " that machine's Ray logs, mend it or take it out of the cluster, and resume"
            )
        _logger.warning(
            "%d workers in a row could not start; the last one: %s. The search goes on with %d",
            self._num_failed_starts,
            why,
            len(self.ready),
        )
        self._num_failed_starts, self._start_again_at = 0, time.monotonic() + PAUSE_SECONDS


def reason(error: RayError) -> str:
    """Ray's error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
