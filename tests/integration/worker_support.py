"""Run run_workflow as a user does: a process of its own against a real server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Worker:
    """A worker's environment: which server, which prefix."""

    environment: Mapping[str, str]

    def run(self, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        """Run one command to its end."""
        return subprocess.run(
            self.command(*arguments),
            env=self.full_environment(changes),
            cwd=PROJECT,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def start(self, *arguments: str, **changes: str) -> subprocess.Popen[str]:
        """Start one command."""
        return subprocess.Popen(
            self.command(*arguments),
            env=self.full_environment(changes),
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def json(self, *arguments: str) -> Any:
        """Run one command that must succeed and parse what it prints."""
        result = self.run(*arguments, "--json")
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    @staticmethod
    def command(*arguments: str) -> list[str]:
        """The command line."""
        return [sys.executable, "-m", "workflow", *arguments]

    def full_environment(self, changes: Mapping[str, str]) -> dict[str, str]:
        """This process's environment, without any database settings of its own, and the worker's."""
        own = {k: v for k, v in os.environ.items() if not k.startswith(("DJ_", "WORKFLOW_"))}
        return own | dict(self.environment) | dict(changes)


def one_line(stderr: str) -> str:
    """The only line of an error message; anything else is no clear error."""
    lines = stderr.strip().splitlines()
    assert len(lines) == 1, stderr
    return lines[0]
