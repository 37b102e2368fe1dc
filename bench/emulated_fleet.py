"""Time a round on one and on eight emulated EC2 machines: what a round costs besides its computing.

The image is of one layer, and its program has nothing to compute: it writes the summary and ends. What the
machines do they do on the cores of this computer, on AWS on their own: what is found is an upper bound.

On AWS a change of state lasts: over four months somebody's instances took 33 s to boot and 9 s to stop, on
average (github.com/kelda/kelda, pull request 755). Here `pending` and `stopping` are given 10 s each, with
the machine's own boot on top; and in a second row next to nothing: what is left then is what these cores
compute.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bench.emulated import Rehearsal
from bench.registry import Options, Row, benchmark

WORKERS = 8
CORES = os.cpu_count() or 1

#: Seconds for which `pending` and `stopping` last; how many times one worker's round eight workers' may take.
LAGS = {10.0: 2.0, 0.3: None}

DOCKERFILE = """ARG BASE_IMAGE
FROM ${BASE_IMAGE}
ARG COMMIT
ARG VERSION
COPY program.py /program.py
ENTRYPOINT ["python3", "/program.py"]
"""
PROGRAM = '''"""Stands for a run_workflow that finds nothing due: {change}."""
import json, pathlib, sys

folder = pathlib.Path(sys.argv[-1])
summary = {{"verdict": "succeeded", "message": "nothing was due", "tables": [], "keys": []}}
(folder / "summary.json").write_text(json.dumps(summary))
(folder / "report.html").write_text("<html></html>")
'''


@dataclass(frozen=True)
class _Cost:
    """What a round took: wall time, processor time of the control node, and how busy all cores were."""

    seconds: float
    control: float
    busy: float


class Fleet(Rehearsal):
    """Eight machines, and a repository whose image takes a second to build."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.repository, self.inventory = folder / "repository", folder / "inventory"
        self.inventory.mkdir()
        (self.inventory / "group_vars").symlink_to(self.clone / "inventory" / "rehearsal" / "group_vars")
        local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        workers = {
            f"worker{number}": {"instance_power_instance_id": f"i-0000000000000b00{number}"}
            for number in range(1, WORKERS + 1)
        }
        hosts = {"hosts": {"localhost": local}, "children": {"workers": {"hosts": workers}}}
        (self.inventory / "hosts.yml").write_text(json.dumps({"all": hosts}))
        (self.repository / "requirements").mkdir(parents=True)
        (self.repository / "requirements" / "worker.txt").touch()
        (self.repository / "Dockerfile").write_text(DOCKERFILE)
        self.run("git", "init", "--quiet", "--initial-branch=main", at=self.repository)

    def change(self) -> None:
        """Commit another program."""
        self.count += 1
        (self.repository / "program.py").write_text(PROGRAM.format(change=self.count))
        self.run("git", "add", "--all", at=self.repository)
        identity = ("-c", "user.name=bench", "-c", "user.email=bench@example.org")
        self.run("git", *identity, "commit", "--quiet", f"--message={self.count}", at=self.repository)

    def round_on(self, workers: str, lag: float) -> _Cost:
        """Run a round of changed code on some of them; EC2's states last for so many seconds."""
        self.change()
        unused = dict.fromkeys(("host", "user", "password", "database_name"), "unused")
        began, control, idle = time.monotonic(), _control_node(), _idle()
        self.play(
            "run.yml",
            str(self.inventory),
            "--limit",
            workers,
            sandbox_project=str(self.clone),
            ec2_emulator_lag_seconds=lag,
            embedded_database_directory="",
            round_prepare_command=[],
            workflow_source_repository=str(self.repository),
            workflow_settings_port=5432,
            **{f"workflow_settings_{name}": value for name, value in unused.items()},
        )
        seconds = time.monotonic() - began
        return _Cost(seconds, _control_node() - control, 1 - (_idle() - idle) / seconds / CORES)


def _control_node() -> float:
    """Processor seconds of everything that has been run from here, which is the control node."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _idle() -> float:
    """Seconds for which this computer's cores have had nothing to do, together."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return (int(fields[4]) + int(fields[5])) / os.sysconf("SC_CLK_TCK")


@benchmark("fleet-emulated")
def fleet(options: Options) -> list[Row]:
    """Eight machines that boot, at once, against one; needs a Docker engine."""
    with tempfile.TemporaryDirectory() as folder:
        machines = Fleet(Path(folder))
        try:
            machines.round_on("workers", min(LAGS))  # new machines
            return [_row(machines, options.repeats or 3, *pair) for pair in LAGS.items()]
        finally:
            machines.remove()


def _row(machines: Fleet, repeats: int, lag: float, limit: float | None) -> Row:
    pairs = [(machines.round_on("worker1", lag), machines.round_on("workers", lag)) for _ in range(repeats)]
    note = "; ".join(
        f"{words}: {CORES} cores {statistics.median(cost.busy for cost in costs):.0%} busy, of which the "
        f"control node took {statistics.median(cost.control for cost in costs):.0f} s"
        for words, costs in zip(("one", "all"), zip(*pairs, strict=True), strict=True)
    )
    return Row(
        f"round of {WORKERS} workers, against one",
        f"EC2's states last {lag:g} s",
        statistics.median(eight.seconds for _, eight in pairs),
        baseline=statistics.median(one.seconds for one, _ in pairs),
        ratio=statistics.median(one.seconds / eight.seconds for one, eight in pairs),
        required_ratio=limit and 1 / limit,
        note=note,
    )
