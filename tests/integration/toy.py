"""One test's copy of the toy pipeline on one server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from databases import ROOT, Server

HERE = Path(__file__).parent
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass(frozen=True)
class Toy:
    """A server, a prefix for the names of schemas, and a folder."""

    server: Server
    prefix: str
    folder: Path

    def environment(self, **changes: str) -> dict[str, str]:
        own = {
            "PYTHONPATH": f"{ROOT}:{HERE}",
            "OPENBLAS_NUM_THREADS": "1",
            "WORKFLOW_PREFIX": self.prefix,
            "WORKFLOW_MODULES": "toy_pipeline",
            "WORKFLOW_COMMIT": COMMIT,
            "WORKFLOW_HEARTBEAT": "0.5",
            "TOY_FOLDER": str(self.folder),
        }
        return {**self.server.environment(), **own, **changes}

    def workflow(self, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        """Run run_workflow to its end."""
        return self.server.run(["-m", "workflow", *arguments], **self.environment(**changes))

    def run(self, *arguments: str, code: int = 0, **changes: str) -> dict[str, Any]:
        """Run the verb run; its summary."""
        result = self.workflow("run", "--json", *arguments, **changes)
        assert result.returncode == code, f"{result.returncode}: {result.stdout[-2000:]}{result.stderr}"
        summary: dict[str, Any] = json.loads(result.stdout)
        return summary

    def running(self, *arguments: str, **changes: str) -> AbstractContextManager[subprocess.Popen[str]]:
        """The verb run, started; killed in the end if it is still there."""
        return self._started(["-m", "workflow", "run", "--json", *arguments], changes)

    def background(self, script: str) -> AbstractContextManager[subprocess.Popen[str]]:
        """Statements with the tables bound, started; killed in the end."""
        return self._started(["-c", _PROLOGUE + script], {})

    @contextmanager
    def _started(self, arguments: list[str], changes: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env={**os.environ, **self.environment(**changes)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()

    def execute(self, script: str, *arguments: Any) -> Any:
        """Run statements with the tables bound; the value of ``answer``, which JSON can hold."""
        text = f"{_PROLOGUE}given = json.loads({json.dumps(json.dumps(arguments))})\n{script}{_EPILOGUE}"
        result = self.server.run(["-c", text], **self.environment())
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    def insert(self, numbers: range) -> None:
        self.execute("Number.insert({'number': n} for n in range(*given[0]))", [numbers.start, numbers.stop])

    def state(self) -> dict[str, Any]:
        """Everything that must be right after a run, whatever happened during it."""
        state: dict[str, Any] = self.execute(_STATE)
        return state

    def computations(self, table: str) -> list[int]:
        """Numbers in the order of their computations."""
        path = self.folder / table
        return [int(line.split()[0]) for line in path.read_text().splitlines()] if path.exists() else []


def workers_of(supervisor: int) -> list[int]:
    """Process ids of the workers of a supervisor: the children of its one child."""
    return [worker for nursery in children(supervisor) for worker in children(nursery)]


def children(pid: int) -> list[int]:
    """Process ids of the children of a process that are not dead."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return sorted(found)


def wait_for(condition: Callable[[], Any], process: subprocess.Popen[str] | None = None) -> Any:
    """Wait until something is true, as long as the process runs; pytest's own time limit applies."""
    import time

    while not (value := condition()):
        assert process is None or process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    return value


def kill(pid: int) -> None:
    """Kill one process."""
    os.kill(pid, signal.SIGKILL)


_PROLOGUE = """
import json
from workflow.settings import load
from workflow import commands
tables = commands._open(load())
from toy_pipeline import *
from workflow.populate import ledger
answer = None
"""
_EPILOGUE = """
print(json.dumps(answer, default=str))
"""
_STATE = """
squares = Square.to_dicts()
digits = Square.Digit.to_dicts()
answer = {
    'numbers': len(Number()),
    'squares': len(squares),
    'wrong': [row for row in squares if row['square'] != row['number'] ** 2],
    'digits': len(digits) - sum(len(str(row['square'])) for row in squares),
    'roots': len(Root()),
    'jobs': {label: {k: v for k, v in table.jobs.progress().items() if v and k != 'total'}
             for label, table in tables.items()},
    'alive': len(ledger.Worker & 'ended is null'),
}
"""
