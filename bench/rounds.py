"""Time rounds on the sandbox: what a round adds to its computations, and `make run` on a fresh clone."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.measure import MeasurementError
from bench.registry import Options, Row, benchmark

ROOT = Path(__file__).resolve().parents[1]
FIRST_LIMIT, AGAIN_LIMIT, OVERHEAD_LIMIT = 240.0, 15.0, 25.0  # s

#: Makes the results of one session due again, with everything that was computed from them.
FORGET = """
from workflow import commands, settings
from workflow.pipeline import svd
commands._open(settings.load())
session = svd.PopulationSVD.proj().keys(order_by="KEY", limit=1)[0]
(svd.PopulationSVD & {name: session[name] for name in ("subject_id", "session")}).delete()
"""


@dataclass(frozen=True)
class Round:
    """One round: its wall time, and the part of it in which keys were computed (s); how many were due."""

    wall: float
    busy: float
    due: int

    @property
    def overhead(self) -> float:
        """Everything but the computations."""
        return self.wall - self.busy


def busy_seconds(keys: list[dict[str, Any]]) -> float:
    """From the first start of a key to the last end; several are computed at a time."""
    starts = [datetime.fromisoformat(key["started"]).timestamp() for key in keys]
    ends = [start + key["seconds"] for start, key in zip(starts, keys, strict=True)]
    return max(ends) - min(starts) if keys else 0.0


def _timed(command: list[str], folder: Path, artifacts: Path, **environment: str) -> Round:
    """Run a round and read what it left."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "MAKE"))}
    began = time.monotonic()
    run = subprocess.run(
        command, cwd=folder, env=kept | environment, capture_output=True, text=True, check=False
    )
    wall = time.monotonic() - began
    if run.returncode != 0:
        raise MeasurementError(
            f"{command[0]} ended with {run.returncode}: {(run.stdout + run.stderr)[-1500:]}"
        )
    summary = json.loads((max(artifacts.iterdir()) / "summary.json").read_text())
    return Round(wall, busy_seconds(summary["keys"]), sum(table["due"] for table in summary["tables"]))


def _round(home: Path, runtime: str) -> Round:
    variables = {
        "sandbox_home": str(home),
        "sandbox_artifacts": str(home / "artifacts"),
        "workflow_image_runtime": runtime,
    }
    ansible_playbook = str(Path(sys.executable).with_name("ansible-playbook"))
    return _timed([ansible_playbook, "run.yml", "-e", json.dumps(variables)], ROOT, home / "artifacts")


def _forget(home: Path) -> None:
    program = ROOT / "roles" / "embedded_database" / "files" / "embedded_database.py"
    command = [sys.executable, str(program), "exec", "--directory", str(home / "database")]
    done = subprocess.run(
        [*command, "--", sys.executable, "-c", FORGET],
        cwd=ROOT,
        env=os.environ | {"WORKFLOW_UPSTREAM": "declare", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise MeasurementError(f"results could not be deleted: {done.stderr[-1500:]}")


def _measure(runtime: str, options: Options, idle_limit: float | None, limit: float | None) -> list[Row]:
    idle, working = [], []
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "sandbox"
        first = _round(home, runtime)
        for _ in range(options.repeats or 3):
            idle.append(_round(home, runtime))
            _forget(home)
            working.append(_round(home, runtime))
    if any(one.due for one in idle) or not all(one.due for one in working):
        raise MeasurementError("keys were due where none should be, or none where some should be")
    note = f"{working[0].due} keys, computed within {statistics.median(one.busy for one in working):.1f} s"
    return [
        Row("first round", runtime, first.overhead, note="environment or image included"),
        Row(
            "round, nothing due",
            runtime,
            statistics.median(one.wall for one in idle),
            limit_seconds=idle_limit,
        ),
        Row(
            "round, overhead",
            runtime,
            statistics.median(one.overhead for one in working),
            limit_seconds=limit,
            note=note,
        ),
    ]


@benchmark("round-venv")
def venv(options: Options) -> list[Row]:
    """All but populate's own computing, in a virtual environment."""
    return _measure("venv", options, AGAIN_LIMIT, None)


@benchmark("round-docker")
def docker(options: Options) -> list[Row]:
    """All but populate's own computing, in a container; needs an engine."""
    return _measure("docker", options, None, OVERHEAD_LIMIT)


@benchmark("make-run")
def make_run(options: Options) -> list[Row]:
    """The first `make run` of a fresh clone, downloads included, and later ones; with an engine too."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        nowhere = {"DOCKER_HOST": f"unix://{folder}/no-engine", "PIP_NO_CACHE_DIR": "1"}
        try:
            first = _make(clone, **nowhere)
            again = [_make(clone, **nowhere) for _ in range(options.repeats or 3)]
            image = contained = None
            if _engine_answers():
                image = _make(clone)
                contained = [_make(clone) for _ in range(options.repeats or 3)]
        finally:
            subprocess.run(["make", "clean"], cwd=clone, capture_output=True, check=False)
    rows = [
        Row(
            "first make run", "venv", first.wall, limit_seconds=FIRST_LIMIT, note=f"{first.due} keys were due"
        ),
        _nothing_due("venv", again),
    ]
    if image and contained:
        rows += [
            Row("make run", "docker", image.wall, note="the image was made"),
            _nothing_due("docker", contained),
        ]
    return rows


def _make(clone: Path, **environment: str) -> Round:
    return _timed(["make", "run"], clone, clone / "artifacts", **environment)


def _nothing_due(runtime: str, rounds: list[Round]) -> Row:
    if any(one.due for one in rounds):
        raise MeasurementError("make run after make run found something due")
    wall = statistics.median(one.wall for one in rounds)
    return Row("make run, nothing due", runtime, wall, limit_seconds=AGAIN_LIMIT)


def _engine_answers() -> bool:
    try:
        asked = subprocess.run(["docker", "version"], capture_output=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return asked.returncode == 0
