"""Runs the steps of a job with bash, as GitHub would; `uses:` steps have stand-ins."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from expressions import Expressions, hash_files, text
from jobs import Event, Job, Step, StepFailedError, WorkflowError, read_file_of_values, refuse_unknown

KNOWN_STEP = {"name", "id", "if", "run", "uses", "with", "env", "shell"}
#: Which contexts GitHub knows where; an expression that uses another one is an error there as here.
OF_STEP = ("github", "needs", "inputs", "vars", "matrix", "strategy", "env", "steps", "runner", "job")
OF_COMPOSITE = ("github", "runner", "job")
#: Seconds that a step may take, on a machine that is busy with other tests.
PATIENCE = 900
SHELL = {"bash": ["bash", "--noprofile", "--norc", "-eo", "pipefail"], None: ["bash", "-e"]}


@dataclass
class StepRunner:
    """Runs steps, on a fresh clone.

    Parameters
    ----------
    folder : Path
        Where the jobs have their workspaces.
    repository : Path
        The origin; the workflow file is read from its branch.
    stand_ins : mapping
        By the action's name, a function of job, inputs and this runner, which returns the outputs.
    secrets, variables : mapping
        As set in the repository.
    environ : mapping
        What a runner's machine has in its environment.
    """

    folder: Path
    repository: Path
    stand_ins: Mapping[str, Callable[[Job, dict[str, str], Any], dict[str, str]]]
    secrets: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    environ: dict[str, str] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)

    def git(self, *arguments: str) -> str:
        """Ask the repository."""
        return subprocess.run(
            ["git", *arguments], cwd=self.repository, check=True, capture_output=True, text=True
        ).stdout.strip()

    def expressions(self, job: Job, env: dict[str, str], steps: dict[str, Any]) -> Expressions:
        contexts = {name: job.contexts[name] for name in OF_STEP if name in job.contexts}
        contexts |= {"env": {**job.env, **env}, "steps": steps}
        if "secrets" in job.contexts:
            contexts["secrets"] = job.contexts["secrets"]
        functions = {
            "always": lambda: True,
            "success": lambda: job.status == "success",
            "failure": lambda: job.status == "failure",
            "cancelled": lambda: job.status == "cancelled",
            "hashFiles": lambda *patterns: hash_files(job.workspace, *patterns),
        }
        return Expressions(contexts, functions)

    def run_steps(self, job: Job, definitions: list[dict[str, Any]], shell: Any) -> None:
        """Run the steps of a job, or of a composite action within one."""
        steps: dict[str, Any] = {}
        job.contexts["steps"] = steps
        for definition in definitions:
            refuse_unknown(definition, KNOWN_STEP, str(definition))
            before = self.expressions(job, {}, steps)
            conditions = Expressions(
                {name: one for name, one in before.contexts.items() if name != "secrets"}, before.functions
            )
            step = Step(definition.get("name", definition.get("id", "?")), "skipped")
            job.steps.append(step)
            if conditions.condition(definition.get("if", "true")):
                env = {one: text(its) for one, its in before.fill(definition.get("env", {})).items()}
                self._run_step(job, step, definition, env, shell)
                job.contexts["steps"] = steps
            if definition.get("id"):
                steps[definition["id"]] = {
                    "outcome": step.outcome,
                    "conclusion": step.outcome,
                    "outputs": step.outputs,
                }

    def _run_step(
        self, job: Job, step: Step, definition: dict[str, Any], env: dict[str, str], shell: Any
    ) -> None:
        expressions = self.expressions(job, env, job.contexts["steps"])
        before = job.status
        if "uses" in definition:
            given = {name: text(one) for name, one in expressions.fill(definition.get("with", {})).items()}
            self._use(job, step, definition["uses"], given, shell)
        else:
            script = text(expressions.fill(definition["run"]))
            self._execute(job, step, script, env, definition.get("shell", shell))
        if step.outcome != "success" and before == "success":
            job.status = step.outcome
            job.contexts["job"] = {"status": job.status}

    def _use(self, job: Job, step: Step, reference: str, given: dict[str, str], shell: Any) -> None:
        if reference.startswith("$/"):
            place = f"{job.contexts['github']['sha']}:{reference[2:]}/action.yml"
            action = yaml.safe_load(self.git("show", place))
            before, outside = len(job.steps), job.contexts
            job.contexts = {name: outside[name] for name in OF_COMPOSITE} | {"inputs": given}
            self.run_steps(job, action["runs"]["steps"], None)
            job.contexts = outside
            inner = [one.outcome for one in job.steps[before:]]
            step.outcome = next((one for one in inner if one in ("failure", "cancelled")), "success")
            return
        name, _, commit = reference.partition("@")
        if name not in self.stand_ins or not re.fullmatch("[0-9a-f]{40}", commit):
            raise WorkflowError(
                f"{reference}: there is no stand-in for it, or it is not pinned by a commit id"
            )
        try:
            step.outputs = self.stand_ins[name](job, given, self)
            step.outcome = "success"
        except StepFailedError as error:
            step.output, step.outcome = self.masked(str(error)), "failure"

    def _execute(self, job: Job, step: Step, script: str, env: dict[str, str], shell: Any) -> None:
        number = f"{len(job.steps):02d}"
        files = {
            name: job.folder / "files" / f"{number}-{name}" for name in ("output", "env", "path", "summary")
        }
        for file in files.values():
            file.touch()
        place = job.folder / "temp" / f"{number}.sh"
        place.write_text(script)
        log = job.folder / "files" / f"{number}-log"
        with log.open("w") as said:
            process = subprocess.Popen(
                [*SHELL[shell], str(place)],
                cwd=job.workspace,
                env=self._environment(job, env, files),
                stdout=said,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
            cancelled = self._wait(process, step, log)
        step.output = self.masked(log.read_text(errors="replace"))
        files["summary"].write_text(self.masked(files["summary"].read_text()))
        step.outcome = "cancelled" if cancelled else "failure" if process.returncode else "success"
        step.outputs = read_file_of_values(files["output"])
        job.env |= read_file_of_values(files["env"])
        job.path += files["path"].read_text().split()

    def _environment(self, job: Job, env: dict[str, str], files: dict[str, Path]) -> dict[str, str]:
        github = job.contexts["github"]
        return {
            **self.environ,
            "PATH": ":".join([*reversed(job.path), self.environ["PATH"]]),
            "HOME": str(job.folder / "home"),
            # A socket's path has 108 letters at most, and a home in a test's folder is a long one.
            "ANSIBLE_SSH_CONTROL_PATH_DIR": f"{tempfile.gettempdir()}/workflow-ssh-{os.getpid()}",
            **{f"GITHUB_{name.upper()}": value for name, value in github.items()},
            "RUNNER_TEMP": str(job.folder / "temp"),
            "GITHUB_ACTIONS": "true",
            "CI": "true",
            "GITHUB_OUTPUT": str(files["output"]),
            "GITHUB_ENV": str(files["env"]),
            "GITHUB_PATH": str(files["path"]),
            "GITHUB_STEP_SUMMARY": str(files["summary"]),
            **job.env,
            **env,
        }

    def _wait(self, process: subprocess.Popen[bytes], step: Step, log: Path) -> bool:
        """Wait for a step, and let happen what is to happen meanwhile; return whether it was cancelled."""
        deadline = time.monotonic() + PATIENCE
        while process.poll() is None:
            if time.monotonic() > deadline:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise WorkflowError(f"{step.name} took more than {PATIENCE} s: {log.read_text()[-3000:]}")
            for event in self.events:
                if not event.over and event.step == step.name and event.words in log.read_text():
                    event.over = True
                    if event.do is None:
                        self._cancel(process)
                        return True
                    event.do(process)
                    break
            time.sleep(0.1)
        return False

    def _cancel(self, process: subprocess.Popen[bytes]) -> None:
        """Interrupt a step, then end it, as GitHub does."""
        for number, patience in ((signal.SIGINT, 7.5), (signal.SIGTERM, 2.5)):
            process.send_signal(number)
            try:
                process.wait(patience)
                return
            except subprocess.TimeoutExpired:
                continue
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def masked(self, said: str) -> str:
        """Hide the secrets, and what steps asked to hide."""
        asked = re.findall(r"^::add-mask::(.+)$", said, re.MULTILINE)
        for value in sorted({*self.secrets.values(), *asked} - {""}, key=len, reverse=True):
            said = said.replace(value, "***")
        return said
