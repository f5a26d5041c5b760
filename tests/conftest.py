"""What all tests share: the environment, the data beside the repository, one Ray cluster."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# Before any test module imports torch: results and timings must not depend on the machine's idle cores.
os.environ["OMP_NUM_THREADS"] = "1"
# A shell that starts the tests in the background lets them, and all that they start, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

OBJECT_STORE_BYTES = 200 * 2**20


@pytest.fixture(scope="session", autouse=True)
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads the user's cache, writes to the user's MLflow, or joins the user's cluster."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACROSS_CACHE", str(tmp_path_factory.mktemp("across_cache")))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID", "RAY_ADDRESS"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder `shared/data` beside the repository, which holds the real data sets."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        message = f"this test needs the data sets in {folder}"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return folder


@pytest.fixture(scope="session")
def ray_cluster(environment: None) -> Iterator[Cluster]:
    """A Ray head with four CPUs and no GPU, and this process connected to it; starting one takes seconds."""
    import ray
    from ray.cluster_utils import Cluster

    head = {
        "num_cpus": 4,
        "num_gpus": 0,
        "object_store_memory": OBJECT_STORE_BYTES,
        "include_dashboard": False,
    }
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        ray.init(address=cluster.address, log_to_driver=False)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()
