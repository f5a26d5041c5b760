"""The cluster files: valid for Ray, one version of it everywhere, spot workers, nothing open but ssh."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

REPOSITORY = Path(__file__).resolve().parents[1]
FILES = ("cluster.yaml", "configs/cluster_local.yaml")
SHARED_MOUNT = "/mnt/across"
COMMANDS = (
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)


def load(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((REPOSITORY / name).read_text(encoding="utf-8"))
    return document


def commands(document: dict[str, Any]) -> list[str]:
    return [command for section in COMMANDS for command in document.get(section, [])]


def run_at_home(script: str, home: Path) -> str:
    """What `script` prints in bash, in an otherwise empty environment."""
    environment = {"HOME": str(home), "PATH": "/usr/local/bin:/usr/bin:/bin"}
    finished = subprocess.run(
        ["bash", "-c", script], env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    return finished.stdout


@pytest.fixture(params=FILES)
def document(request: pytest.FixtureRequest) -> dict[str, Any]:
    return load(request.param)


@pytest.fixture
def aws() -> dict[str, Any]:
    return load("cluster.yaml")


def test_ray_accepts_the_file(document: dict[str, Any]) -> None:
    validate_config(prepare_config(document))


def test_the_installed_ray_is_the_locked_one(document: dict[str, Any]) -> None:
    lock = (REPOSITORY / "requirements.lock").read_text(encoding="utf-8")
    locked = re.findall(r"^ray==(\S+)$", lock, flags=re.MULTILINE)
    installed = re.findall(r"\bray(?:\[\w+\])?==([\w.]+)", "\n".join(document["setup_commands"]))

    assert len(locked) == 1
    assert installed == locked
    assert any("make_venv.sh" in command for command in document["setup_commands"])


def test_commands_are_valid_shell(document: dict[str, Any]) -> None:
    for command in commands(document):
        subprocess.run(["bash", "-n", "-c", command], check=True)


def test_what_the_installation_needs_is_copied(document: dict[str, Any]) -> None:
    mounts = {remote: Path(local) for remote, local in document["file_mounts"].items()}
    assert all((REPOSITORY / local).exists() for local in mounts.values())
    assert all(remote == f"~/across/{local.as_posix()}" for remote, local in mounts.items())

    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    links = {path.resolve().name for path in (REPOSITORY / "across").iterdir() if path.is_symlink()}
    packages = {"across", *links}
    licenses = set(project["project"]["license-files"])
    needed = packages | licenses | {"pyproject.toml", "requirements.lock", "tools"}
    assert needed == {local.as_posix() for local in mounts.values()}


def test_mlflow_is_on_the_heads_own_disk(document: dict[str, Any], tmp_path: Path) -> None:
    # Run twice, as `ray up` does on a cluster that is there already.
    run_at_home("\n".join(document["head_setup_commands"] * 2), tmp_path)

    assert (tmp_path / ".bashrc").read_text().count("export MLFLOW_TRACKING_URI=") == 1
    uri = run_at_home(". ~/.bashrc; echo $MLFLOW_TRACKING_URI", tmp_path).strip()
    database = Path(uri.removeprefix("sqlite:///"))
    assert uri.startswith("sqlite:///")
    assert database.is_relative_to(tmp_path)
    assert database.parent.is_dir()
    assert not any("MLFLOW" in c for c in commands(document) if c not in document["head_setup_commands"])


def test_the_shared_folder_is_there_before_the_setup(document: dict[str, Any]) -> None:
    first = "\n".join(document["initialization_commands"])
    assert f"mountpoint -q {SHARED_MOUNT} ||" in first
    assert f"{SHARED_MOUNT}/runs" in first


def test_data_sets_are_where_the_configs_look_for_them(document: dict[str, Any], tmp_path: Path) -> None:
    [link] = [command for command in document["setup_commands"] if command.startswith("ln ")]
    (tmp_path / "across").mkdir()
    for _ in range(2):
        run_at_home(link, tmp_path)

    roots = [
        yaml.safe_load(path.read_text())["tasks"].get("root")
        for path in (REPOSITORY / "configs").glob("*omniglot*.yaml")
    ]
    assert roots
    assert all(root.startswith("data/") for root in roots)
    assert str((tmp_path / "across" / "data").readlink()) == f"{SHARED_MOUNT}/data"


def test_the_dashboard_is_reached_through_ssh_only(document: dict[str, Any]) -> None:
    (start,) = (command for command in document["head_start_ray_commands"] if "ray start --head" in command)
    assert "--dashboard-host=127.0.0.1" in start


def test_only_ssh_is_open(aws: dict[str, Any]) -> None:
    # Ray itself adds port 22 and the traffic within the group; anything listed here comes on top.
    rules = aws["provider"]["security_group"]["IpPermissions"]
    assert {(rule.get("FromPort"), rule.get("ToPort")) for rule in rules} <= {(22, 22)}
    for node_type in aws["available_node_types"].values():
        assert (
            node_type["node_config"]
            .keys()
            .isdisjoint({"SecurityGroupIds", "NetworkInterfaces", "LaunchTemplate"})
        )


def test_workers_are_spot_and_the_head_is_not(aws: dict[str, Any]) -> None:
    node_types = dict(aws["available_node_types"])
    head = node_types.pop(aws["head_node_type"])
    markets = [worker["node_config"]["InstanceMarketOptions"]["MarketType"] for worker in node_types.values()]

    assert "InstanceMarketOptions" not in head["node_config"]
    assert set(markets) == {"spot"}
    assert aws["provider"]["cache_stopped_nodes"] is False


def test_all_nodes_have_one_image_and_so_one_python(aws: dict[str, Any]) -> None:
    images = {node_type["node_config"]["ImageId"] for node_type in aws["available_node_types"].values()}
    assert len(images) == 1
