"""Time rounds on the sandbox: with nothing due, in both runtimes, and the overhead of a round."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.measure import MeasurementError
from bench.registry import Options, Row, benchmark

ROOT = Path(__file__).resolve().parents[1]


def round_seconds(home: Path, runtime: str) -> tuple[float, float]:
    """Run one round; return its wall time and what populate itself computed, both in seconds."""
    variables: dict[str, Any] = {
        "sandbox_home": str(home),
        "sandbox_artifacts": str(home / "artifacts"),
        "workflow_image_runtime": runtime,
    }
    command = [
        str(Path(sys.executable).with_name("ansible-playbook")),
        "run.yml",
        "-e",
        json.dumps(variables),
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    began = time.monotonic()
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    wall = time.monotonic() - began
    if run.returncode != 0:
        raise MeasurementError(f"a round in runtime {runtime} failed: {run.stdout[-1500:]}")
    newest = max((home / "artifacts").iterdir())
    summary = json.loads((newest / "summary.json").read_text())
    return wall, sum(table["seconds"] for table in summary["tables"])


def _measure(runtime: str, limit: float, options: Options) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "sandbox"
        first, computing = round_seconds(home, runtime)
        again = [round_seconds(home, runtime) for _ in range(options.repeats or 3)]
    return [
        Row("first round", runtime, first - computing, note="environment or image included"),
        Row(
            "round, nothing due",
            runtime,
            statistics.median(wall - own for wall, own in again),
            limit_seconds=limit,
        ),
    ]


@benchmark("round-venv")
def venv(options: Options) -> list[Row]:
    """All but populate's own computing, in a virtual environment."""
    return _measure("venv", 15.0, options)


@benchmark("round-docker")
def docker(options: Options) -> list[Row]:
    """All but populate's own computing, in a container; needs an engine."""
    return _measure("docker", 25.0, options)
