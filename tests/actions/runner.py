"""Runs a workflow file as GitHub would, step by step, on a fresh clone; `uses:` steps have stand-ins."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from expressions import Expressions, hash_files, text

KNOWN_STEP = {"name", "id", "if", "run", "uses", "with", "env", "shell"}
KNOWN_JOB = {
    *("name", "runs-on", "timeout-minutes", "permissions", "outputs", "steps", "needs", "environment"),
    *("strategy", "concurrency", "env", "if"),
}
KNOWN_WORKFLOW = {"name", "run-name", True, "permissions", "concurrency", "defaults", "env", "jobs"}
#: Which contexts GitHub knows where; an expression that uses another one is an error there as here.
OF_WORKFLOW = ("github", "inputs", "vars", "secrets")
OF_JOB = ("github", "needs", "inputs", "vars", "matrix", "strategy")
OF_STEP = (*OF_JOB, "env", "steps", "runner", "job")
OF_COMPOSITE = ("github", "runner", "job")
PATIENCE = 900
"""Seconds that a step may take, on a machine that is busy with other tests."""
SHELL = {"bash": ["bash", "--noprofile", "--norc", "-eo", "pipefail"], None: ["bash", "-e"]}


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
class Cancel:
    """Cancels the job, as the button of the web page does, when a step has said something."""

    step: str
    words: str


@dataclass
class Runner:
    """Runs workflows of one repository.

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
    stand_ins: Mapping[str, Callable[[Job, dict[str, str], Runner], dict[str, str]]]
    secrets: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    environ: dict[str, str] = field(default_factory=dict)
    actor: str = "anna"
    triggering_actor: str = ""
    branch: str = "main"
    event: str = "workflow_dispatch"
    cancel: Cancel | None = None
    count: int = 0

    def git(self, *arguments: str) -> str:
        """Ask the repository."""
        return subprocess.run(
            ["git", *arguments], cwd=self.repository, check=True, capture_output=True, text=True
        ).stdout.strip()

    def run(self, name: str, **inputs: Any) -> dict[str, Job]:
        """Run a workflow to its end; return its jobs by name."""
        self.count += 1
        workflow = yaml.safe_load(self.git("show", f"{self.branch}:.github/workflows/{name}"))
        _refuse_unknown(workflow, KNOWN_WORKFLOW, name)
        contexts = {
            "github": self._github(),
            "inputs": self._inputs(workflow, inputs),
            "vars": self.variables,
            "secrets": self.secrets,
        }
        at_top = Expressions({key: contexts[key] for key in OF_WORKFLOW})
        at_top.fill(workflow.get("run-name", ""))
        at_top.fill(workflow.get("concurrency", {}))
        env = {key: text(one) for key, one in at_top.fill(workflow.get("env", {})).items()}
        done: dict[str, Job] = {}
        needs: dict[str, Any] = {}
        for key, definition in workflow["jobs"].items():
            _refuse_unknown(definition, KNOWN_JOB, key)
            wanted = definition.get("needs", [])
            wanted = [wanted] if isinstance(wanted, str) else wanted
            needed = {name: needs[name] for name in wanted}
            shell = workflow.get("defaults", {}).get("run", {}).get("shell")
            made = self._instances(key, definition, contexts | {"needs": needed}, env, shell)
            for job in made:
                done[job.name] = job
            results = {job.status for job in made} or {"skipped"}
            result = next(one for one in ("cancelled", "failure", "skipped", "success") if one in results)
            needs[key] = {"result": result, "outputs": made[-1].outputs if made else {}}
        return done

    def _github(self) -> dict[str, Any]:
        return {
            "actor": self.actor,
            "triggering_actor": self.triggering_actor or self.actor,
            "ref_name": self.branch,
            "ref": f"refs/heads/{self.branch}",
            "sha": self.git("rev-parse", self.branch),
            "event_name": self.event,
            "repository": "lab/round",
            "run_id": str(1000 + self.count),
            "run_attempt": "1",
            "server_url": "https://github.invalid",
        }

    def _inputs(self, workflow: dict[Any, Any], given: dict[str, Any]) -> dict[str, Any]:
        declared = ((workflow[True] or {}).get(self.event) or {}) if self.event == "workflow_dispatch" else {}
        known = declared.get("inputs", {})
        if set(given) - set(known):
            raise WorkflowError(f"there is no input {set(given) - set(known)}")
        empty = {"string": "", "boolean": False, "number": None}
        return {name: given.get(name, one.get("default", empty[one["type"]])) for name, one in known.items()}

    def _instances(
        self, key: str, definition: dict[str, Any], contexts: dict[str, Any], env: dict[str, str], shell: Any
    ) -> list[Job]:
        """Run a job, once for each value of its matrix; not at all if one that it needs did not succeed."""
        known = {name: contexts[name] for name in OF_JOB if name in contexts}
        bad = [one for one in contexts["needs"].values() if one["result"] != "success"]
        statuses = {"success": lambda: not bad, "always": lambda: True, "failure": lambda: bool(bad)}
        if not Expressions(known, statuses).condition(definition.get("if", "true")):
            return []
        strategy = Expressions(known).fill(definition.get("strategy", {}))
        [(name, values)] = list(strategy.get("matrix", {}).items()) or [("", [None])]
        made = []
        for value in values:
            matrix = {name: value} if name else {}
            here = {**contexts, "matrix": matrix, "strategy": strategy}
            job = Job(
                name=f"{key} {value}" if name else key,
                key=key,
                folder=self.folder / f"{self.count}-{key}-{len(made)}",
                definition=definition,
                contexts=here,
            )
            at_job = Expressions({**{one: here[one] for one in OF_JOB}, "secrets": self.secrets})
            job.env = {
                **env,
                **{one: text(its) for one, its in at_job.fill(definition.get("env", {})).items()},
            }
            without_secrets = Expressions({one: here[one] for one in OF_JOB})
            for place in ("environment", "name", "runs-on", "timeout-minutes"):
                without_secrets.fill(definition.get(place, ""))
            job.group = text(without_secrets.fill(definition.get("concurrency", {}).get("group", "")))
            self._run_job(job, shell)
            made.append(job)
        return made

    def _run_job(self, job: Job, shell: Any) -> None:
        for one in ("workspace", "temp", "files", "home"):
            (job.folder / one).mkdir(parents=True)
        job.contexts["github"] = {**job.contexts["github"], "workspace": str(job.workspace)}
        job.contexts["runner"] = {"os": "Linux", "arch": "X64", "temp": str(job.folder / "temp")}
        job.contexts["job"] = {"status": "success"}
        self._run_steps(job, job.definition["steps"], shell)
        steps = job.contexts["steps"]
        expressions = self._expressions(job, {}, steps)
        for name, value in job.definition.get("outputs", {}).items():
            said = text(expressions.fill(value))
            job.outputs[name] = "" if any(one and one in said for one in self.secrets.values()) else said

    def _expressions(self, job: Job, env: dict[str, str], steps: dict[str, Any]) -> Expressions:
        contexts = {name: job.contexts[name] for name in OF_STEP if name in job.contexts}
        contexts |= {"env": {**job.env, **env}, "steps": steps}
        if "secrets" in job.contexts:
            contexts["secrets"] = self.secrets
        functions = {
            "always": lambda: True,
            "success": lambda: job.status == "success",
            "failure": lambda: job.status == "failure",
            "cancelled": lambda: job.status == "cancelled",
            "hashFiles": lambda *patterns: hash_files(job.workspace, *patterns),
        }
        return Expressions(contexts, functions)

    def _run_steps(self, job: Job, definitions: list[dict[str, Any]], shell: Any) -> None:
        """Run the steps of a job, or of a composite action within one."""
        steps: dict[str, Any] = {}
        job.contexts["steps"] = steps
        for definition in definitions:
            _refuse_unknown(definition, KNOWN_STEP, str(definition))
            before = self._expressions(job, {}, steps)
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
        expressions = self._expressions(job, env, job.contexts["steps"])
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
            self._run_steps(job, action["runs"]["steps"], None)
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
        """Wait for a step; when it is to be cancelled, interrupt it, then end it, as GitHub does."""
        deadline = time.monotonic() + PATIENCE
        while process.poll() is None:
            if time.monotonic() > deadline:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise WorkflowError(f"{step.name} took more than {PATIENCE} s: {log.read_text()[-3000:]}")
            if self.cancel and self.cancel.step == step.name and self.cancel.words in log.read_text():
                for number, patience in ((signal.SIGINT, 7.5), (signal.SIGTERM, 2.5)):
                    process.send_signal(number)
                    try:
                        process.wait(patience)
                        return True
                    except subprocess.TimeoutExpired:
                        continue
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return True
            time.sleep(0.1)
        return False

    def masked(self, said: str) -> str:
        """Hide the secrets, and what steps asked to hide."""
        asked = re.findall(r"^::add-mask::(.+)$", said, re.MULTILINE)
        for value in sorted({*self.secrets.values(), *asked} - {""}, key=len, reverse=True):
            said = said.replace(value, "***")
        return said


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


def _refuse_unknown(definition: Mapping[Any, Any], known: set[Any], where: str) -> None:
    if set(definition) - known:
        raise WorkflowError(f"{where}: this runner does not know {sorted(map(str, set(definition) - known))}")
