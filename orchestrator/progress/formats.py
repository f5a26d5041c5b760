"""Numbers as people read them; a dash where there is none."""

from __future__ import annotations

from math import isfinite

MISSING = "–"


def format_fitness(value: float | None) -> str:
    """Four decimals."""
    return f"{value:.4f}" if value is not None and isfinite(value) else MISSING


def format_rate(value: float | None) -> str:
    """Whole numbers from 10 on, one decimal below."""
    if value is None or not isfinite(value):
        return MISSING
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def format_share(value: float | None) -> str:
    """Percent."""
    return f"{value:.0%}" if value is not None and isfinite(value) else MISSING


def format_seconds(value: float | None) -> str:
    """`4.2 s` below a minute, then `12:03`, `1:02:03` and `2 d 03:04`."""
    if value is None or not isfinite(value) or value < 0:
        return MISSING
    if value < 59.5:
        return f"{value:.1f} s" if value < 9.95 else f"{value:.0f} s"
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 24:
        return f"{hours // 24} d {hours % 24:02d}:{minutes:02d}"
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def format_count(value: int | None) -> str:
    """Thousands separated by commas."""
    return MISSING if value is None else f"{value:,}"
