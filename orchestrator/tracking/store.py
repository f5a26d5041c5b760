"""Where MLflow keeps its runs: made ready so that it can be opened, and given up, without a long wait."""

from __future__ import annotations

import logging
import math
import os
import socket
import tempfile
from contextlib import suppress
from pathlib import Path

from mlflow import MlflowClient
from mlflow.store.db import utils as mlflow_database
from sqlalchemy import make_url

from across.orchestrator.run_directory.durable_files import create_file
from across.orchestrator.tracking.config import SQLITE_SCHEME

_DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


def bound_waiting(timeout_seconds: float) -> None:
    """MLflow's own patience is minutes; what the user has set in the environment stays."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(math.ceil(timeout_seconds)))
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    mlflow_database.MAX_RETRY_COUNT = 1
    for name in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.WARNING)


def prepare_database(uri: str, timeout_seconds: float) -> None:
    """Make a database that MLflow can open without a long wait; other URIs need nothing."""
    kind = uri.partition(":")[0].partition("+")[0]
    if kind in _DATABASE_PORTS:
        url = make_url(uri)
        if url.host:  # drivers wait minutes for a host that does not answer
            address = url.host, url.port or _DATABASE_PORTS[kind]
            socket.create_connection(address, timeout_seconds).close()
    path = Path(uri.removeprefix(SQLITE_SCHEME))
    if uri.startswith(SQLITE_SCHEME) and not path.exists():
        _create_sqlite(path)


def _create_sqlite(path: Path) -> None:
    """The tables are made elsewhere: it takes seconds, and one that is killed half-way cannot be completed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / "mlflow.db"
        MlflowClient(tracking_uri=f"{SQLITE_SCHEME}{draft}").search_experiments(max_results=1)
        with suppress(FileExistsError):  # another search was first
            create_file(path, draft.read_bytes())
