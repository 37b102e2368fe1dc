"""A fresh clone of this tree, and rounds that are run from it as an operator runs them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ec2_support import emulator

ROOT = Path(__file__).resolve().parents[2]
INSTANCE = "i-0000000000000da7a"
DECLARED = [{"id": INSTANCE, "name": "sandbox"}]


@dataclass(frozen=True)
class Outcome:
    """How one ansible-playbook run ended."""

    status: int
    output: str
    summary: dict[str, Any]
    artifacts: Path | None

    def reason(self) -> str:
        """Everything that the verdict says, on one line."""
        verdict = self.output.rpartition("TASK [Show the verdict]")[2]
        lines = [line.strip().removeprefix("- ").strip("'\"") for line in verdict.splitlines()]
        return re.sub(r"\s+", " ", " ".join(lines))


@dataclass(frozen=True)
class Project:
    """A clone, and where all its sandboxes keep the worker's virtual environment."""

    folder: Path
    environments: Path

    def git(self, *arguments: str) -> str:
        """Run git in the clone."""
        identity = ["-c", "user.name=Tester", "-c", "user.email=tester@example.org"]
        return subprocess.run(
            ["git", *identity, *arguments], cwd=self.folder, check=True, capture_output=True, text=True
        ).stdout.strip()

    def command(self, home: Path, variables: dict[str, Any], inventory: str = "sandbox") -> list[str]:
        """The command line of a round on a sandbox of its own."""
        given = {
            "sandbox_home": str(home),
            "sandbox_artifacts": str(home / "artifacts"),
            "workflow_image_venv_directory": str(self.environments),
            "workflow_image_runtime": "venv",
            **variables,
        }
        ansible_playbook = Path(sys.executable).with_name("ansible-playbook")
        return [
            str(ansible_playbook),
            "-i",
            str(Path("inventory", inventory)),
            "run.yml",
            "-e",
            json.dumps(given),
        ]

    def round(
        self,
        home: Path,
        inventory: str = "sandbox",
        environment: dict[str, str] | None = None,
        **variables: Any,
    ) -> Outcome:
        """Run one round to its end."""
        before = set((home / "artifacts").glob("*"))
        run = subprocess.run(
            self.command(home, variables, inventory),
            cwd=self.folder,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", **(environment or {})},
            capture_output=True,
            text=True,
            timeout=1200,
            check=False,
        )
        made = sorted(set((home / "artifacts").glob("*")) - before)
        found = made[-1] / "summary.json" if made else None
        summary = json.loads(found.read_text()) if found and found.exists() else {}
        return Outcome(run.returncode, run.stdout + run.stderr, summary, made[-1] if made else None)


def clone(destination: Path) -> Path:
    """Copy what git would track of this tree, as one commit."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (destination / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, destination / name)
    return destination


@contextmanager
def cloud(directory: Path, instances: list[dict[str, Any]] | None = None, *options: str) -> Iterator[Any]:
    """Have an inventory's emulated EC2 run on after its rounds, so that it can be asked; yield a client."""
    with emulator(directory, instances or DECLARED, "--lag=0.3", "--grace=5", *options) as ec2:
        yield ec2


def states(ec2: Any) -> dict[str, str]:
    """What DescribeInstances says of every instance."""
    listed = [one for group in ec2.describe_instances()["Reservations"] for one in group["Instances"]]
    return {one["InstanceId"]: one["State"]["Name"] for one in listed}
