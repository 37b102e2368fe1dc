"""run_workflow on a benchmark's server, with schemas of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from bench.measure import MeasurementError
from bench.servers import ROOT, Server
from workflow.settings import UPSTREAM_SCHEMAS

_PROLOGUE = """
import json
from workflow import commands
from workflow.pipeline import exp2, img, lab, stimanal
from workflow.settings import load
tables = commands._open(load())
"""


def environment(of: Server, prefix: str) -> dict[str, str]:
    """Say where the laboratory is; one thread of linear algebra in each process."""
    upstream = {f"WORKFLOW_SCHEMA_{name.upper()}": f"{prefix}lab_{name}" for name in UPSTREAM_SCHEMAS}
    own = {
        "WORKFLOW_PREFIX": prefix,
        "WORKFLOW_UPSTREAM": "declare",
        "OPENBLAS_NUM_THREADS": "1",
        "DJ_IGNORE_CONFIG_FILE": "true",
        "PYTHONPATH": str(ROOT),
    }
    return os.environ | of.settings | upstream | own


def workflow(where: dict[str, str], *arguments: str) -> str:
    """Run run_workflow to its end; what it prints."""
    return _run(f"workflow {arguments[0]}", where, ["-m", "workflow", *arguments])


def execute(where: dict[str, str], script: str) -> Any:
    """Run Python statements with all tables bound; the value of ``answer``, which JSON can hold."""
    return json.loads(_run("a script", where, ["-c", f"{_PROLOGUE}{script}\nprint(json.dumps(answer))"]))


def _run(what: str, where: dict[str, str], arguments: list[str]) -> str:
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=where, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise MeasurementError(f"{what} ended with {done.returncode}: {done.stderr[-500:]}")
    return done.stdout
