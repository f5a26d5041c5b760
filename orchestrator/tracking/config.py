"""Where a search is mirrored; apart from the mirror itself, because importing MLflow takes seconds."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field

from across.search_spaces.base import Config

SQLITE_SCHEME = "sqlite:///"


class TrackingConfig(Config):
    """The MLflow store and how long a search may wait for it."""

    uri: str | None = None
    """None: $MLFLOW_TRACKING_URI, else the SQLite file mlflow.db beside the run directories."""
    experiment: str = Field(default="across", min_length=1)
    timeout_seconds: float = Field(default=5.0, gt=0)
    """Longest wait for one answer of a server, and longest catching up after one commit."""
    enabled: bool = True


def store_uri(config: TrackingConfig, runs_folder: Path) -> str:
    """The tracking URI of searches in `runs_folder`, also for MLflow's UI."""
    default = f"{SQLITE_SCHEME}{runs_folder.absolute() / 'mlflow.db'}"
    return config.uri or os.environ.get("MLFLOW_TRACKING_URI") or default


def artifact_location(uri: str, runs_folder: Path) -> str | None:
    """Where a new experiment's artifacts lie: beside the database; None where a server decides."""
    if uri.startswith(SQLITE_SCHEME):
        return (Path(uri.removeprefix(SQLITE_SCHEME)).absolute().parent / "mlartifacts").as_uri()
    if uri.startswith(("http://", "https://", "databricks")):
        return None
    return (runs_folder.absolute() / "mlartifacts").as_uri()
