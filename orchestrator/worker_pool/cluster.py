"""The Ray cluster under a search: joining one, or starting one on this machine, and what it has to offer."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ray
from ray._private.services import canonicalize_bootstrap_address

from across.errors import AcrossError

DEFAULT_PORT = 6379
REACH_SECONDS = 5.0
OBJECT_STORE_BYTES = 2 * 2**30
_FRACTION_TOLERANCE = 1e-6
"""Ten shares of 0.1 are one GPU."""

_logger = logging.getLogger(__name__)


class ClusterError(AcrossError):
    """The cluster cannot be reached, or has less than was asked for; says what to change."""


@dataclass(frozen=True)
class NodeCapacity:
    """What one living node has in total, in use or not."""

    cpus: float
    gpus: float


@dataclass(frozen=True)
class WorkerShare:
    """What one worker reserves; fractions let workers share a device."""

    cpus: float
    gpus: float

    def num_fitting(self, node: NodeCapacity) -> int:
        """How many workers `node` can hold; a fraction of a GPU lies on one of them."""
        fits = [_num_times(node.cpus, self.cpus)]
        if self.gpus >= 1:
            fits.append(_num_times(node.gpus, self.gpus))
        elif self.gpus > 0:
            fits.append(_num_times(1.0, self.gpus) * int(node.gpus))
        return min(fits)


def connect(address: str | None = None) -> None:
    """Join the Ray cluster at `address`, or start one on this machine; nothing happens when already connected.

    `local` starts Ray on this machine; `auto` joins the cluster that this machine belongs to; HOST or HOST:PORT
    joins the one with that head node. None is `auto` where the environment names a cluster (inside a submitted
    job), else `local`. Raises `ClusterError`, within seconds when nobody answers.
    """
    if ray.is_initialized():
        return
    if address is None:
        address = "auto" if os.environ.get("RAY_ADDRESS") else "local"
    if address == "local":
        _start_local()
    else:
        _join(_reachable(address))


def wait_for_nodes(timeout_seconds: float) -> None:
    """Block until a node has something to compute on: in a cluster that is starting, workers join after the head.

    Raises `ClusterError` when none has come within `timeout_seconds`.
    """
    deadline, is_told = time.monotonic() + timeout_seconds, False
    while not any(node.cpus or node.gpus for node in living_nodes()):
        if time.monotonic() > deadline:
            raise ClusterError(
                f"no node with a CPU or GPU joined the cluster within {timeout_seconds:g} s"
                " (workers.start_timeout_seconds): see `ray status` for what holds them back, and repeat the command"
            )
        if not is_told:
            _logger.warning("the cluster has no node to compute on yet: waiting for the first to join")
            is_told = True
        time.sleep(1.0)


def living_nodes() -> list[NodeCapacity]:
    """Capacities of the nodes that are alive now."""
    return [
        NodeCapacity(node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0))
        for node in ray.nodes()
        if node["Alive"]
    ]


def plan_workers(
    nodes: Sequence[NodeCapacity],
    *,
    num_workers: int | None,
    gpus_per_worker: float | None,
    cpus_per_worker: float,
) -> WorkerShare:
    """What one worker gets on `nodes`; raises `ClusterError` when the workers that were asked for do not fit."""
    num_gpus = sum(node.gpus for node in nodes)
    if gpus_per_worker is None:
        gpus_per_worker = 1.0 if num_gpus else 0.0
    share = WorkerShare(cpus_per_worker, gpus_per_worker)
    fitting = sum(share.num_fitting(node) for node in nodes)
    if fitting >= (num_workers or 1):
        return share
    asked = f"{num_workers} workers" if num_workers else "a worker"
    raise ClusterError(
        f"workers: {asked} with {share.gpus:g} GPU and {share.cpus:g} CPU each do not fit: the cluster has"
        f" {num_gpus:g} GPU and {sum(node.cpus for node in nodes):g} CPU on {len(nodes)} node(s), room for"
        f" {fitting}; lower workers.num_workers, workers.gpus_per_worker or workers.cpus_per_worker"
    )


def _num_times(available: float, share: float) -> int:
    return int(available / share + _FRACTION_TOLERANCE)


def _start_local() -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(
        address="local",
        namespace="across",
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=min(OBJECT_STORE_BYTES, int(0.3 * _memory_limit())),
    )


def _join(address: str) -> None:
    try:
        ray.init(address=address, namespace="across", log_to_driver=False, logging_level=logging.ERROR)
    except (Exception, SystemExit) as error:  # Ray ends the process where no control service answers
        reason = " ".join(str(error).split())[:300]
        raise ClusterError(f"cannot join the Ray cluster at {address}: {reason}") from error


def _reachable(address: str) -> str:
    """`address` as HOST:PORT after somebody there accepted a connection: Ray itself would try for minutes."""
    if "://" in address:
        raise ClusterError(
            f"cannot join the Ray cluster at {address}: Ray Client is not supported; run on a machine of the"
            " cluster with the address auto, or submit the command with `ray job submit`"
        )
    if address == "auto":
        try:
            address = canonicalize_bootstrap_address(address) or ""
        except ConnectionError as error:
            raise ClusterError(
                "no running Ray cluster was found on this machine; start one with `ray start --head`, name its"
                " head node as HOST:PORT, or use the address local"
            ) from error
    host, _, port = address.partition(":")
    try:
        number = int(port or DEFAULT_PORT)
        socket.create_connection((host, number), timeout=REACH_SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:
        raise ClusterError(
            f"no Ray cluster answers at {address} ({error}); give the head node as HOST:PORT (the port is"
            f" {DEFAULT_PORT} unless `ray start` was told otherwise), auto, or local"
        ) from error
    return f"{host}:{number}"


def _memory_limit() -> int:
    """Bytes of memory of this machine, or of the container where that has less."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        path = Path(name)
        if path.is_file() and (text := path.read_text().strip()).isdigit():
            total = min(total, int(text))
    return total
