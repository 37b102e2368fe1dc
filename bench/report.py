"""The result table, for people and as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from bench.registry import Row

HEADER = ("step", "size", "baseline", "ours", "ratio", "required", "memory", "at most", "error", "verdict")


def table(rows: Iterable[Row]) -> str:
    """Lay out the rows in columns."""
    lines = [HEADER, *(_cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADER))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) for line in lines)


def remarks(row: Row) -> list[str]:
    """Say what the columns of the table leave out."""
    found = [f"MISSED: {miss}" for miss in row.misses]
    return [f"{row.step} {row.size}: {text}" for text in [*([row.note] if row.note else []), *found]]


def as_json(name: str, row: Row) -> dict[str, Any]:
    """Turn a row into what the JSON file holds."""
    return {"benchmark": name, **asdict(row), "misses": row.misses, "passed": not row.misses}


def _cells(row: Row) -> tuple[str, ...]:
    limit = (
        f"≤ {row.limit_seconds:g} {row.unit}".rstrip()
        if row.limit_seconds is not None
        else _format(row.required_ratio, "≥ {:g}×")
    )
    return (
        row.step,
        row.size,
        _format(row.baseline, f"{{:.3g}} {row.unit}"),
        _format(row.ours, f"{{:.3g}} {row.unit}"),
        _format(row.ratio, "{:.2f}×"),
        limit,
        _format(row.memory_ratio, "{:.2f}"),
        _format(row.limit_memory_ratio, "{:.2f}"),
        _format(row.error, "{:.1e}"),
        "MISS" if row.misses else "pass",
    )


def _format(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)
