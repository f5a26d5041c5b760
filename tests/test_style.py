"""What no linter checks: files stay small enough to read in one go."""

from __future__ import annotations

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
MAX_LINES = 300


def test_source_files_are_short() -> None:
    files = [
        path
        for name in ("search_spaces", "workers", "orchestrator")
        for path in (REPOSITORY / name).rglob("*.py")
    ]
    num_lines = {
        path.relative_to(REPOSITORY): len(path.read_text(encoding="utf-8").splitlines()) for path in files
    }

    assert num_lines
    assert {str(path): count for path, count in num_lines.items() if count > MAX_LINES} == {}
