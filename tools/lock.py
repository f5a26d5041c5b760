"""Writes requirements.lock: an exact pin of everything that running and developing Across needs.

Nothing is installed: pip resolves pyproject.toml with the extra `dev`, from nothing, and the answer is written down.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

HEADER = """\
# Exact versions of everything that running and developing Across needs, for Python 3.11 and 3.12.
# Re-made by `make lock`; do not edit. CUDA's own packages are left to torch, which pins them itself.
"""
PLATFORM_PACKAGES = re.compile(r"(nvidia|cuda|triton)(-|$)")
"""Brought by torch on some platforms only; pinned there by torch's own requirements."""


def resolve(project: Path) -> dict[str, str]:
    """Name and version of each distribution that pip would install for the project and its extra `dev`."""
    # setuptools builds the project, without isolation so that the build needs nothing that is not pinned.
    options = ["--dry-run", "--ignore-installed", "-qq", "--report", "-"]
    report = subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, f"{project}[dev]", "setuptools"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    found = (item["metadata"] for item in json.loads(report)["install"])
    return {entry["name"]: entry["version"].partition("+")[0] for entry in found}


def main() -> None:
    """Write the lock to the path given as the only argument."""
    project = Path(__file__).resolve().parents[1]
    pins = [
        f"{name}=={version}"
        for name, version in sorted(resolve(project).items(), key=lambda pin: pin[0].lower())
        if name != "across-nas" and not PLATFORM_PACKAGES.match(name)
    ]
    target = Path(sys.argv[1])
    target.write_text(HEADER + "\n".join(pins) + "\n", encoding="utf-8")
    print(f"{target}: {len(pins)} pins")


if __name__ == "__main__":
    main()
