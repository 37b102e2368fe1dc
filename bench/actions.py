"""Time from the press of the button start_process to the request that starts the machine, caches warm."""

from __future__ import annotations

import importlib
import statistics
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

from bench.measure import MeasurementError
from bench.registry import Options, Row, benchmark

ROOT = Path(__file__).resolve().parents[1]


@benchmark("start-process")
def start_process(options: Options) -> list[Row]:
    """Run the workflow's own steps, with the tests' runner, on an emulated fleet."""
    for folder in ("integration", "actions"):
        sys.path.insert(0, str(ROOT / "tests" / folder))
    open_lab = importlib.import_module("pressed").open_lab
    seconds = []
    with tempfile.TemporaryDirectory() as folder, open_lab(Path(folder)) as lab:
        lab.load_sample()
        for _ in range(1 + (options.repeats or 3)):
            seen, began = len(lab.requests()), time.time()
            jobs = lab.runner().run("start_process.yaml", workers="cpu1", tables="svd.PopulationSVD")
            if any(job.status != "success" for job in jobs.values()):
                raise MeasurementError(f"the workflow failed: {jobs['round cpu1'].log[-1500:]}")
            seconds.append(_first_start(lab.requests()[seen:]) - began)
    note = "checkout, Python and cache are stand-ins; what GitHub needs for these comes on top"
    return [
        Row(
            "button to StartInstances",
            "one worker",
            statistics.median(seconds[1:]),
            limit_seconds=30.0,
            note=note,
        )
    ]


def _first_start(log: str) -> float:
    """Read when StartInstances was asked for, in seconds since the epoch."""
    line = next(line for line in log.splitlines() if "StartInstances" in line)
    return datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S,%f").astimezone().timestamp()
