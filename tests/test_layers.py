"""The three layers import each other in one direction, and each only the libraries that it may."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Layer:
    """What the modules of one package may import beside the standard library."""

    layers: frozenset[str]
    libraries: frozenset[str] | None = None
    """None: any."""
    confined: dict[str, frozenset[str]] = field(default_factory=dict)
    """Libraries that only the named modules (or folders) of the layer may import."""


LAYERS = {
    "search_spaces": Layer(
        layers=frozenset({"search_spaces"}),
        libraries=frozenset({"numpy", "pydantic"}),
        confined={"torch": frozenset({"operations", "convolution", "normalization", "supernet", "network"})},
    ),
    "workers": Layer(
        layers=frozenset({"search_spaces", "workers"}),
        libraries=frozenset({"torch", "numpy", "pydantic", "scipy", "sklearn", "PIL"}),
    ),
    "orchestrator": Layer(
        layers=frozenset({"search_spaces", "workers", "orchestrator"}),
        confined={
            "ray": frozenset({"worker_pool", "cli"}),
            "mlflow": frozenset({"tracking"}),
        },
    ),
}


def imported_packages(tree: ast.Module, package: str) -> Iterator[tuple[int, str]]:
    """Line and layer, or top-level package, of each import, wherever in the module it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, _package(name.name)) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, package if node.level else _package(node.module or "")


def _package(module: str) -> str:
    """`workers` for `across.workers.base`."""
    first, _, rest = module.partition(".")
    return rest.partition(".")[0] if first == "across" else first


def is_allowed(imported: str, layer: Layer, module_parts: tuple[str, ...]) -> bool:
    """Whether the module at `module_parts` within `layer` may import the package `imported`."""
    if imported == "errors":  # across.errors, below all layers
        return True
    if imported in LAYERS:
        return imported in layer.layers
    if imported in layer.confined:
        return not layer.confined[imported].isdisjoint(module_parts)
    return imported in sys.stdlib_module_names or layer.libraries is None or imported in layer.libraries


def violations(root: Path) -> list[str]:
    """`file:line imports package` for each import that crosses the layers' rules."""
    found = []
    for name, layer in LAYERS.items():
        for path in sorted((root / name).rglob("*.py")):
            parts = path.relative_to(root / name).with_suffix("").parts
            tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
            found += [
                f"{path.relative_to(root).as_posix()}:{line} imports {imported}"
                for line, imported in imported_packages(tree, name)
                if not is_allowed(imported, layer, parts)
            ]
    return found


def test_layers_import_in_one_direction() -> None:
    assert all(list((REPOSITORY / name).rglob("*.py")) for name in LAYERS)
    assert violations(REPOSITORY) == []


@pytest.mark.parametrize(
    ("module", "source", "imported"),
    [
        ("search_spaces/cell.py", "import across.workers.base", "workers"),
        ("search_spaces/cell.py", "from across.orchestrator import state", "orchestrator"),
        ("search_spaces/cell.py", "import torch", "torch"),
        ("search_spaces/network.py", "import scipy.stats", "scipy"),
        ("workers/adaptation.py", "def late():\n    import ray", "ray"),
        ("workers/tasks/glyphs.py", "import mlflow", "mlflow"),
        ("workers/base.py", "from across.orchestrator.state import Commit", "orchestrator"),
        ("workers/base.py", "import tests.conftest", "tests"),
        ("orchestrator/search.py", "import ray", "ray"),
        ("orchestrator/cli.py", "from mlflow import MlflowClient", "mlflow"),
        ("orchestrator/worker_pool/pool.py", "import mlflow.tracking", "mlflow"),
    ],
)
def test_a_forbidden_import_is_found(tmp_path: Path, module: str, source: str, imported: str) -> None:
    path = tmp_path / module
    path.parent.mkdir(parents=True)
    path.write_text(source)

    line = 1 + source.count("\n")
    assert violations(tmp_path) == [f"{module}:{line} imports {imported}"]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("search_spaces/operations.py", "import torch\nimport numpy as np\nfrom pydantic import BaseModel"),
        (
            "search_spaces/cell.py",
            "from . import base\nfrom across.search_spaces.base import Genotype\nimport json",
        ),
        ("workers/tasks/omniglot.py", "from PIL import Image\nfrom across.search_spaces.base import Config"),
        ("orchestrator/worker_pool/pool.py", "import ray\nfrom across.workers.base import Unit"),
        ("orchestrator/tracking/tracker.py", "import mlflow"),
        ("orchestrator/plots/progress.py", "import matplotlib"),
    ],
)
def test_an_allowed_import_passes(tmp_path: Path, module: str, source: str) -> None:
    path = tmp_path / module
    path.parent.mkdir(parents=True)
    path.write_text(source)

    assert violations(tmp_path) == []


@pytest.mark.parametrize("name", LAYERS)
def test_the_old_top_level_names_say_what_to_write(name: str) -> None:
    finished = subprocess.run(
        [sys.executable, "-c", f"import {name}"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )

    assert finished.returncode == 1
    assert f"ImportError: this package is called across.{name}: `from across.{name}" in finished.stderr
