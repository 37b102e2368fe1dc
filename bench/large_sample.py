"""Everything at once: all tables of the large sample, with the real worker on two processes."""

from __future__ import annotations

import json
import os
import tempfile
import uuid
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.laboratory import environment, workflow
from bench.measure import MeasurementError
from bench.registry import Options, Row, benchmark
from bench.servers import server

SIZE = "large"
PROCESSES = 2
LIMIT = 300.0  # s, on 2 cores


def compute_all(size: str, output: Path) -> Row:
    """Load a sample into a server of its own, compute all that is due, and look at what came of it.

    Parameters
    ----------
    size : str
        Of the sample.
    output : Path
        Folder for the report and the summary.
    """
    with server("postgresql") as of:
        where = environment(of, f"bench_{uuid.uuid4().hex[:8]}_")
        workflow(where, "sample", "--size", size)
        workflow(where, "plan")  # declares the tables
        before = of.seconds(), _processor_time()
        run = ("run", "--processes", str(PROCESSES), "--output", str(output), "--json")
        summary = json.loads(workflow(where, *run))
        served, worked = of.seconds() - before[0], _processor_time() - before[1]
    _require_results(summary, (output / "report.html").read_text(encoding="utf-8"))
    began, ended = (datetime.fromisoformat(summary[name]) for name in ("started", "ended"))
    slowest = sorted(summary["tables"], key=lambda table: float(table["seconds"]), reverse=True)[:3]
    names = ", ".join(f"{table['table'].rpartition('.')[2]} {table['seconds']:.0f} s" for table in slowest)
    return Row(
        "all tables",
        f"{sum(table['due'] for table in summary['tables'])} keys, {size} sample, {PROCESSES} processes",
        (ended - began).total_seconds(),
        limit_seconds=LIMIT,
        note=f"longest from first to last key: {names}; processor time {worked:.0f} s, and {served:.0f} s of "
        "the server, on a machine that may do other things at the same time",
    )


def _require_results(summary: dict[str, Any], report: str) -> None:
    for table in summary["tables"]:
        if table["failed"] or not table["done"]:
            raise MeasurementError(f"{table['table']}: {table['done']} keys done, {table['failed']} failed")
    if "could not be drawn" in report:
        raise MeasurementError("a figure of the report could not be drawn: open it to see which, and why")


def _processor_time() -> float:
    """Seconds that our ended descendants have used."""
    used = os.times()
    return used.children_user + used.children_system


@benchmark("large-sample")
def large_sample(options: Options) -> list[Row]:
    """Load, compute and draw the large sample once."""
    del options
    with tempfile.TemporaryDirectory() as folder:
        return [compute_all(SIZE, Path(folder))]
