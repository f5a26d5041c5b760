"""The one MLflow writer: a mirror of the journal, which may be late, but never wrong and never in the way.

One MLflow run a search, found by the search's own id; one batch of metrics a commit, with the journal's timestamp,
so that a batch sent twice is stored once. Two tags of the run count the commits whose metrics, and whose population
artifacts, have arrived: artifacts may lie on another server, whose failure must not hold the metrics back.
"""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH, MAX_PARAMS_TAGS_PER_BATCH

from across.orchestrator.objectives import FrontSummary, Objective, fronts
from across.orchestrator.run_directory import RunDirectory
from across.orchestrator.run_directory.journal import fingerprint
from across.orchestrator.run_directory.sealed_json import canonical_json
from across.orchestrator.state import Commit
from across.orchestrator.tracking.commit_metrics import (
    best_so_far,
    flatten,
    front_metrics,
    front_of,
    metrics_of,
    population_of,
)
from across.orchestrator.tracking.config import TrackingConfig, artifact_location, store_uri
from across.orchestrator.tracking.store import bound_waiting, prepare_database
from across.search_spaces.base import Genotype

RunStatus: TypeAlias = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]

RUN_UID_TAG = "across.run_uid"
FINGERPRINT_TAG = "across.fingerprint"
METRICS_TAG = "across.num_mirrored_commits"
POPULATIONS_TAG = "across.num_mirrored_populations"

PAUSE_FACTOR = 10
"""After a failed attempt the next one waits this many times as long as it took: under 10 % of a search is lost."""

_logger = logging.getLogger(__name__)


class Tracker:
    """The connection to one search's MLflow run.

    No method raises because of MLflow, and each returns whether all that it was to send has arrived. What could not
    be sent is sent by a later call.
    """

    def __init__(
        self,
        config: TrackingConfig,
        run_directory: RunDirectory,
        to_string: Callable[[Genotype], str],
        objectives: Sequence[Objective] = (),
    ) -> None:
        self.uri = store_uri(config, run_directory.path.parent)
        self.run_id: str | None = None
        """None until MLflow has answered once."""
        self._config = config
        self._run_directory = run_directory
        self._to_string = to_string
        self._objectives = objectives
        self._client: MlflowClient | None = None
        self._sent = {METRICS_TAG: 0, POPULATIONS_TAG: 0}
        self._recorded = dict(self._sent)
        self._fingerprint = (0, "")
        self._status: RunStatus | None = None
        self._artifacts: dict[tuple[Path, str], None] = {}
        self._is_down = False
        self._retry_at = -math.inf
        bound_waiting(config.timeout_seconds)

    def mirror(self, commits: Sequence[Commit]) -> bool:
        """Send what is missing of `commits`, the whole journal so far, for about `timeout_seconds` at most."""
        if time.monotonic() < self._retry_at:
            return False
        return self._attempt(commits, self._config.timeout_seconds)

    def mirror_all(self, commits: Sequence[Commit]) -> bool:
        """Send all of `commits` again, whatever has arrived before; nothing is stored twice."""
        return self._attempt(commits, math.inf, is_replay=True)

    def finish(self, commits: Sequence[Commit], status: RunStatus, *, patience_seconds: float = 60) -> bool:
        """Close the run, then send what is missing for about `patience_seconds` at most."""
        self._status = status
        return self._attempt(commits, patience_seconds)

    def set_status(self, status: RunStatus) -> bool:
        """Show the search in this state."""
        self._status = status
        return self._attempt((), 0)

    def log_artifact(self, path: Path, folder: str = "") -> bool:
        """Copy a file, such as a picture, into the run's artifacts; a later copy replaces it."""
        self._artifacts[path, folder] = None
        return time.monotonic() >= self._retry_at and self._attempt((), 0)

    def _attempt(
        self, commits: Sequence[Commit], patience_seconds: float, *, is_replay: bool = False
    ) -> bool:
        """The one place where MLflow's failures end."""
        if not self._config.enabled:
            return True
        started = time.monotonic()
        try:
            client = self._connected()
            if is_replay:
                self._sent = dict.fromkeys(self._sent, 0)
            is_complete = self._send(client, commits, started + patience_seconds)
        except Exception as error:  # noqa: BLE001
            # MlflowException, requests', SQLAlchemy's and the operating system's errors are what one meets; but
            # artifact stores and database drivers bring their own, and none of them is worth a search.
            self._client = None
            self._retry_at = time.monotonic() + PAUSE_FACTOR * (time.monotonic() - started)
            self._warn(error)
            return False
        if self._is_down:
            _logger.warning(
                "MLflow at %s answers again: what it missed is sent now", _without_password(self.uri)
            )
        self._is_down = False
        return is_complete

    def _warn(self, error: Exception) -> None:
        """Once a breakdown."""
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        if not self._is_down:
            _logger.warning(
                "MLflow at %s cannot be reached or refuses: %s. The search goes on; what is missing is sent when "
                "it answers again, at the latest by `across mirror %s`",
                _without_password(self.uri),
                _without_password(reason),
                self._run_directory.path,
            )
        self._is_down = True

    def _send(self, client: MlflowClient, commits: Sequence[Commit], deadline: float) -> bool:
        run_id = self._run_id()
        if self._status is not None:
            is_over = self._status != "RUNNING"
            (client.set_terminated if is_over else client.update_run)(run_id, self._status)
            self._status = None
        bests = best_so_far(commits)
        trade_offs = fronts(commits, self._objectives) if self._objectives else [None] * len(commits)
        for position in range(self._sent[METRICS_TAG], len(commits)):
            self._send_metrics(client, commits, position, bests[position], trade_offs[position])
            if time.monotonic() > deadline:
                return False
        for position in range(self._sent[POPULATIONS_TAG], len(commits)):
            self._send_population(client, commits[position], trade_offs[position])
            if time.monotonic() > deadline:
                return False
        for path, folder in list(self._artifacts):
            client.log_artifact(run_id, str(path), folder or None)
            del self._artifacts[path, folder]
        return True

    def _send_metrics(
        self,
        client: MlflowClient,
        commits: Sequence[Commit],
        position: int,
        best: float,
        front: FrontSummary | None,
    ) -> None:
        """Metrics first, then the tag that says so, in one request."""
        commit, count = commits[position], position + 1
        milliseconds = round(commit.timestamp * 1000)
        metrics = [
            Metric(name, value, milliseconds, commit.number)
            for name, value in (metrics_of(commit, best) | front_metrics(front)).items()
        ]
        tags = []
        if count >= self._recorded[METRICS_TAG]:  # a replay never counts back
            tags = [
                RunTag(FINGERPRINT_TAG, self._fingerprint_of(commits, count)),
                RunTag(METRICS_TAG, str(count)),
            ]
            self._recorded[METRICS_TAG] = count
        client.log_batch(self._run_id(), metrics=metrics, tags=tags)
        self._sent[METRICS_TAG] = count

    def _send_population(self, client: MlflowClient, commit: Commit, front: FrontSummary | None) -> None:
        text = canonical_json(population_of(commit, self._to_string)).decode()
        client.log_text(self._run_id(), text, f"populations/{commit.kind}_{commit.number:04d}.json")
        if front is not None:
            text = canonical_json(front_of(front, self._objectives, self._to_string)).decode()
            client.log_text(self._run_id(), text, f"fronts/generation_{commit.number:04d}.json")
        count = commit.number + 1
        if count > self._recorded[POPULATIONS_TAG]:
            client.set_tag(self._run_id(), POPULATIONS_TAG, str(count))
            self._recorded[POPULATIONS_TAG] = count
        self._sent[POPULATIONS_TAG] = count

    def _fingerprint_of(self, commits: Sequence[Commit], count: int) -> str:
        known, chain = self._fingerprint if self._fingerprint[0] <= count else (0, "")
        self._fingerprint = count, fingerprint(commits[known:count], start=chain)
        return self._fingerprint[1]

    def _run_id(self) -> str:
        assert self.run_id is not None
        return self.run_id

    def _connected(self) -> MlflowClient:
        if self._client is None:
            prepare_database(self.uri, self._config.timeout_seconds)
            client = MlflowClient(tracking_uri=self.uri)
            run = self._find_or_create_run(client)
            self.run_id = run.info.run_id
            self._send_params(client, run)
            self._recorded = {tag: int(run.data.tags.get(tag, 0)) for tag in self._sent}
            self._sent = dict(self._recorded)
            self._client = client
        return self._client

    def _find_or_create_run(self, client: MlflowClient) -> Run:
        """By the search's own id, so that a driver that was killed right after the creation ends with one run."""
        run_directory = self._run_directory
        experiment_id = self._find_or_create_experiment(client)
        condition = f"tags.`{RUN_UID_TAG}` = '{run_directory.run_uid}'"
        found = client.search_runs([experiment_id], condition, max_results=1, order_by=["start_time ASC"])
        if found:
            return found[0]
        tags = {f"across.environment.{name}": value for name, value in run_directory.environment.items()}
        tags |= {
            RUN_UID_TAG: run_directory.run_uid,
            "across.run_directory": str(run_directory.path.absolute()),
        }
        return client.create_run(experiment_id, tags=tags, run_name=run_directory.path.name)

    def _find_or_create_experiment(self, client: MlflowClient) -> str:
        name = self._config.experiment
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            location = artifact_location(self.uri, self._run_directory.path.parent)
            try:
                return client.create_experiment(name, artifact_location=location)
            except MlflowException:
                experiment = client.get_experiment_by_name(name)
                if experiment is None:  # otherwise another search has just created it
                    raise
        return experiment.experiment_id

    def _send_params(self, client: MlflowClient, run: Run) -> None:
        params = [
            Param(name, text[:MAX_PARAM_VAL_LENGTH])
            for name, text in flatten(self._run_directory.config).items()
            if name not in run.data.params
        ]
        for start in range(0, len(params), MAX_PARAMS_TAGS_PER_BATCH):
            client.log_batch(run.info.run_id, params=params[start : start + MAX_PARAMS_TAGS_PER_BATCH])


def _without_password(text: str) -> str:
    return re.sub(r"//[^/@\s]*@", "//***@", text)
