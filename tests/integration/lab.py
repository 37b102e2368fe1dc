"""A laboratory's database for one test: sample recordings in schemas that nobody else uses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from databases import ROOT, Server

from workflow.settings import UPSTREAM_SCHEMAS


@dataclass(frozen=True)
class Lab:
    """One server and the prefix of this test's schemas."""

    server: Server
    prefix: str

    def environment(self, **changes: str) -> dict[str, str]:
        """What run_workflow needs to find this laboratory."""
        schemas = {f"WORKFLOW_SCHEMA_{name.upper()}": f"{self.prefix}lab_{name}" for name in UPSTREAM_SCHEMAS}
        own = {"WORKFLOW_PREFIX": self.prefix, "WORKFLOW_UPSTREAM": "declare", "OPENBLAS_NUM_THREADS": "1"}
        return {**self.server.environment(), **schemas, **own, **changes}

    def workflow(self, *arguments: str | Path, **changes: str) -> subprocess.CompletedProcess[str]:
        """Run run_workflow to its end."""
        return self.server.run(["-m", "workflow", *map(str, arguments)], **self.environment(**changes))

    def start(self, *arguments: str, **changes: str) -> subprocess.Popen[str]:
        """Start run_workflow."""
        return subprocess.Popen(
            [sys.executable, "-m", "workflow", *arguments],
            cwd=ROOT,
            env={**os.environ, **self.environment(**changes)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def json(self, *arguments: str | Path) -> Any:
        """Run a verb that must succeed and parse what it prints."""
        result = self.workflow(*arguments, "--json")
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    def execute(self, script: str, **changes: str) -> Any:
        """Run Python statements with all tables bound; the value of ``answer``, which JSON can hold."""
        result = self.server.run(["-c", _PROLOGUE + script + _EPILOGUE], **self.environment(**changes))
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)


_PROLOGUE = """
import json
from workflow.settings import load
from workflow import commands
from workflow.pipeline import exp2, img, lab, stimanal, svd
tables = commands._open(load())
answer = None
"""
_EPILOGUE = """
print(json.dumps(answer, default=str))
"""


def one_line(result: subprocess.CompletedProcess[str]) -> str:
    """The only line of an error message; anything else is no clear error."""
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    return lines[0]


def counts(summary: Mapping[str, Any]) -> dict[str, tuple[int, int, int, int]]:
    """Per table: due, done, failed, skipped."""
    return {
        table["table"]: (table["due"], table["done"], table["failed"], table["skipped"])
        for table in summary["tables"]
    }
