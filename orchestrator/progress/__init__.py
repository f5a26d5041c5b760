"""What a search shows: progress while it runs, its summary at the end, the state of runs."""

from across.orchestrator.progress.displays import LiveProgress, PlainProgress, Progress, make_progress
from across.orchestrator.progress.generation_summary import GenerationSummary, summarize_generations
from across.orchestrator.progress.reports import (
    RunPhase,
    RunStatus,
    SearchSummary,
    TableScore,
    render_status,
    render_status_table,
    render_summary,
)

__all__ = [
    "GenerationSummary",
    "LiveProgress",
    "PlainProgress",
    "Progress",
    "RunPhase",
    "RunStatus",
    "SearchSummary",
    "TableScore",
    "make_progress",
    "render_status",
    "render_status_table",
    "render_summary",
    "summarize_generations",
]
