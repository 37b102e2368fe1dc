"""What a workflow run leaves: jobs, their steps, and the files in which steps hand values on."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class WorkflowError(Exception):
    """A workflow that GitHub would refuse, or that uses what this runner does not know."""


class StepFailedError(Exception):
    """A stand-in fails as its action would; the message is what it says."""


@dataclass
class Step:
    """What became of one step."""

    name: str
    outcome: str
    output: str = ""
    outputs: dict[str, str] = field(default_factory=dict)


@dataclass
class Job:
    """One job while it runs, and what became of it."""

    name: str
    key: str
    folder: Path
    definition: dict[str, Any]
    contexts: dict[str, Any]
    status: str = "success"
    steps: list[Step] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    path: list[str] = field(default_factory=list)
    group: str = ""
    outputs: dict[str, str] = field(default_factory=dict)
    artifacts: dict[str, list[Path]] = field(default_factory=dict)
    posts: list[Callable[[], object]] = field(default_factory=list)

    @property
    def workspace(self) -> Path:
        """Where the repository is checked out."""
        return self.folder / "workspace"

    @property
    def summary(self) -> str:
        """What the steps wrote on the page of the run."""
        return "".join(file.read_text() for file in sorted((self.folder / "files").glob("*-summary")))

    @property
    def log(self) -> str:
        """What all steps said."""
        return "\n".join(f"== {step.name}: {step.outcome}\n{step.output}" for step in self.steps)

    def step(self, name: str) -> Step:
        """Find a step by its name."""
        return next(step for step in self.steps if step.name == name)


@dataclass
class Event:
    """What happens, once, when a step has said something; without anything to do, the job is cancelled."""

    step: str
    words: str
    do: Callable[[subprocess.Popen[bytes]], object] | None = None
    over: bool = False


def read_file_of_values(file: Path) -> dict[str, str]:
    """Read GITHUB_OUTPUT or GITHUB_ENV: NAME=VALUE, or NAME<<END, lines, END."""
    found: dict[str, str] = {}
    lines = iter(file.read_text().split("\n"))
    for line in lines:
        name, sign, rest = re.fullmatch(r"(.*?)(<<|=)(.*)|()", line).group(1, 2, 3)  # type: ignore[union-attr]
        if sign == "=":
            found[name] = rest
        elif sign == "<<":
            values = []
            for value in lines:
                if value == rest:
                    break
                values.append(value)
            else:
                raise WorkflowError(f"{name} has no end {rest}")
            found[name] = "\n".join(values)
    return found


def annotations(job: Job, kind: str = "error") -> list[str]:
    """List a job's annotations of one kind."""
    return re.findall(rf"^::{kind} title=[^:]*::(.*)$", job.log, re.MULTILINE)


def refuse_unknown(definition: Mapping[Any, Any], known: set[Any], where: str) -> None:
    if set(definition) - known:
        raise WorkflowError(f"{where}: this runner does not know {sorted(map(str, set(definition) - known))}")
