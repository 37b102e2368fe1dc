"""Time rounds on an emulated EC2 machine that boots: from start to first make, from last make to stop.

The pipeline is one trivial table; each round finds one key due. What is timed is everything else: EC2's
states, SSH, Ansible, the build, the container, the results' way home. The machine and the image's layers are
warm, as they are from a worker's second round on.

What counts as Ansible's own part of the way to the first make is the rest when what it waits for is taken
off: EC2 and the boot, the build in the machine's engine, and the container between launch and first make.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.measure import MeasurementError
from bench.registry import Options, Row, benchmark

ROOT = Path(__file__).resolve().parents[1]
WORKER = "i-0000000000000a001"

PIPELINE = '''"""Keys that cost nothing."""
import datajoint as dj

schema = dj.Schema()


@schema
class Number(dj.Lookup):
    definition = "number : int32"
    contents = [(number,) for number in range({count})]


@schema
class Copy(dj.Computed):
    definition = "-> Number"

    def make(self, key):
        self.insert1(key)
'''


#: Tasks, as their names begin, that wait for EC2, for the boot, and for the engine: from StartInstances on.
WAITING = (
    "instance_power : Ask EC2 to start the instance",
    "instance_power : Wait until the instance is",
    "instance_power : Read the console output until",
    "Wait until the machine answers",
    "workflow_image : Build the image",
)
LAUNCH = "workflow_run : Launch"
BUILDS = 20


@dataclass(frozen=True)
class Round:
    """What a round took, in seconds."""

    to_first_make: float
    to_stopped: float
    image: float
    ansible: float = 0.0


class Rehearsal:
    """A clone of the last commit, and one machine on which its rounds run."""

    def __init__(self, folder: Path) -> None:
        self.home, self.clone = folder / "home", folder / "clone"
        self.count = 0
        self.run("git", "clone", "--quiet", str(ROOT), str(self.clone), at=ROOT)

    def run(self, *words: str, at: Path | None = None, **environment: str) -> str:
        """Run a command; return what it printed."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        done = subprocess.run(
            words,
            cwd=at or self.clone,
            env=kept | environment,
            capture_output=True,
            text=True,
            timeout=1800,
            check=False,
        )
        if done.returncode != 0:
            raise MeasurementError(
                f"{words[0]} ended with {done.returncode}: {done.stdout[-1500:]}{done.stderr}"
            )
        return done.stdout

    def change(self) -> None:
        """Change code in workflow/, which makes one more key due, and commit it."""
        self.count += 1
        (self.clone / "workflow" / "bench_keys.py").write_text(PIPELINE.format(count=self.count))
        self.run("git", "add", "--all")
        identity = ("-c", "user.name=bench", "-c", "user.email=bench@example.org")
        self.run("git", *identity, "commit", "--quiet", f"--message=key {self.count}")

    def play(self, playbook: str, inventory: str, *options: str, **given: Any) -> list[_Task]:
        """Run a playbook; return its tasks."""
        own = {"sandbox_home": str(self.home), "sandbox_artifacts": str(self.home / "artifacts")}
        program = str(Path(sys.executable).with_name("ansible-playbook"))
        words = (program, "-i", inventory, playbook, "-e", json.dumps(own | given), *options)
        said = self.run(*words, ANSIBLE_STDOUT_CALLBACK="ansible.posix.json")
        account = json.JSONDecoder().raw_decode(said[said.index("{\n") :])[0]
        tasks = [task["task"] for play in account["plays"] for task in play["tasks"]]
        return [
            _Task(task["name"], _moment(task["duration"]["start"]), _moment(task["duration"]["end"]))
            for task in tasks
            if "end" in task["duration"]
        ]

    def round(self) -> Round:
        """Run one round; read its times from EC2's log, the summary, and Ansible's own account."""
        tasks = self.play(
            "run.yml",
            "inventory/rehearsal",
            round_environment={"WORKFLOW_MODULES": "workflow.bench_keys"},
            round_prepare_command=[],
        )
        image = sum(task.seconds for task in tasks if task.name.startswith("workflow_image : "))
        summary = json.loads(max((self.home / "artifacts").glob("*/*/summary.json")).read_text())
        began = [_moment(key["started"]) for key in summary["keys"]]
        if not began:
            return Round(0.0, 0.0, image)
        ended = max(start + key["seconds"] for start, key in zip(began, summary["keys"], strict=True))
        asked, first = self.logged("StartInstances"), min(began)
        waited = sum(
            task.end - max(task.start, asked)
            for task in tasks
            if task.name.startswith(WAITING) and task.end > asked
        )
        [launched] = [task.end for task in tasks if task.name == LAUNCH]
        return Round(
            first - asked,
            self.logged(f"{WORKER}: stopped") - ended,
            image,
            launched - asked - waited,
        )

    def build(self, count: int) -> None:
        """Build so many images of as many commits, one after the other."""
        start = {"instance_power_state": "running", "instance_power_round_tags": {"round": "bench"}}
        source = {
            "workflow_image_source": "{{ round_home }}/rounds/current/source",
            "workflow_image_commit": "{{ '%040x' | format(item) }}",
        }
        plays = [
            {"hosts": "localhost", "connection": "local", "tasks": [_include("ec2_emulator")]},
            {
                "hosts": "workers",
                "tasks": [
                    _include("instance_power", **start),
                    {"ansible.builtin.wait_for_connection": {"timeout": 120}},
                    _include("workflow_image", **source) | {"loop": list(range(1, count + 1))},
                    _include("instance_power", instance_power_state="stopped"),
                ],
            },
        ]
        playbook = self.clone / "bench_builds.yml"
        playbook.write_text(json.dumps([play | {"gather_facts": False} for play in plays]))
        self.play(playbook.name, "inventory/rehearsal")

    def logged(self, words: str) -> float:
        """Say when the emulated EC2 last wrote this into its log."""
        lines = (self.home / "ec2" / "server.log").read_text().splitlines()
        latest = [line for line in lines if line.endswith(words)][-1]
        return datetime.strptime(latest[:23], "%Y-%m-%d %H:%M:%S,%f").astimezone().timestamp()

    def images(self) -> int:
        """Count the worker's images, and nameless ones, in the machine's own engine: start it for that."""
        listed = self.run(
            "docker",
            "ps",
            "--all",
            "--format={{.Names}}",
            f"--filter=label=ec2-emulator.instance={WORKER}",
            f"--filter=label=ec2-emulator.directory={self.home / 'ec2'}",
        ).split()
        self.run("docker", "start", listed[0])
        wait = "until docker version >/dev/null 2>&1; do sleep 0.2; done"
        named, nameless = (
            "docker images --quiet datajoint-round",
            "docker images --quiet --filter dangling=true",
        )
        look = f"{wait}; ({named}; {nameless}) | sort -u | wc -l"
        return int(self.run("docker", "exec", listed[0], "timeout", "60", "sh", "-c", look))

    def remove(self) -> None:
        """Remove the machine, and end the database."""
        program = self.clone / "roles" / "embedded_database" / "files" / "embedded_database.py"
        self.run(sys.executable, str(program), "stop", "--directory", str(self.home / "database"))
        emulator = self.clone / "roles" / "ec2_emulator" / "files"
        self.run(sys.executable, "-m", "ec2_emulator", "remove", str(self.home / "ec2"), at=emulator)


@dataclass(frozen=True)
class _Task:
    name: str
    start: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.start


def _include(role: str, **variables: Any) -> dict[str, Any]:
    return {"ansible.builtin.include_role": {"name": role}, "vars": variables}


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@benchmark("round-emulated")
def emulated(options: Options) -> list[Row]:
    """Rounds on a machine that boots; needs a Docker engine, and minutes for the first one."""
    repeats = options.repeats or 4
    with tempfile.TemporaryDirectory() as folder:
        rehearsal = Rehearsal(Path(folder))
        try:
            changed = []
            for _ in range(repeats + 1):
                rehearsal.change()
                changed.append(rehearsal.round())
            same = [rehearsal.round() for _ in range(max(2, repeats - 1))]
            rehearsal.build(BUILDS - len(changed))
            images = rehearsal.images()
        finally:
            rehearsal.remove()
    warm = changed[1:]
    return [
        Row(
            "StartInstances to first make", "code changed", _median(warm, "to_first_make"), limit_seconds=20.0
        ),
        Row("Ansible's part of that", "code changed", _median(warm, "ansible"), limit_seconds=8.0),
        Row("last make to stopped", "followed", _median(warm, "to_stopped"), limit_seconds=8.0),
        Row("image", "code changed", _median(warm, "image"), limit_seconds=5.0),
        Row("image", "nothing changed", _median(same, "image"), limit_seconds=2.0),
        Row(f"images after {BUILDS} builds", "", float(images), limit_seconds=3.0, unit=""),
    ]


def _median(rounds: list[Round], name: str) -> float:
    return float(statistics.median(getattr(one, name) for one in rounds))
