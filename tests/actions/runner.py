"""Runs a workflow file as GitHub would, job by job: inputs, contexts, needs, matrix, outputs, calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from expressions import Expressions, text
from jobs import Job, WorkflowError, refuse_unknown
from steps import StepRunner

KNOWN_JOB = {
    *("name", "runs-on", "timeout-minutes", "permissions", "outputs", "steps", "needs", "environment"),
    *("strategy", "concurrency", "env", "if"),
}
KNOWN_CALL = {"name", "permissions", "needs", "uses", "with", "secrets", "if"}
KNOWN_WORKFLOW = {"name", "run-name", True, "permissions", "concurrency", "defaults", "env", "jobs"}
#: Which contexts GitHub knows where; an expression that uses another one is an error there as here.
OF_WORKFLOW = ("github", "inputs", "vars")
OF_JOB = ("github", "needs", "inputs", "vars", "matrix", "strategy")
MAY = {"none": 0, "read": 1, "write": 2}
KINDS: dict[str, tuple[type, ...]] = {"string": (str,), "boolean": (bool,), "number": (int, float)}


@dataclass
class Runner(StepRunner):
    """Runs workflows of one repository."""

    actor: str = "anna"
    triggering_actor: str = ""
    branch: str = "main"
    event: str = "workflow_dispatch"
    first_id: int = 1000
    count: int = 0
    attempt: int = 1
    groups: list[str] = field(default_factory=list)
    cached: dict[str, Path] | None = (
        None  # by key; None: what this test's own environment has is there already
    )

    @property
    def installed(self) -> Path:
        """Where it is written down what was installed."""
        return self.folder / "installed"

    def run(self, name: str, **inputs: Any) -> dict[str, Job]:
        """Run a workflow to its end; return its jobs by name."""
        self.count += 1
        self.attempt = 1
        return self._run_workflow(name, self.event, inputs, self.secrets, {})

    def run_failed_again(self, name: str, before: dict[str, Job], **inputs: Any) -> dict[str, Job]:
        """Press "Re-run failed jobs": what succeeded is not run again, and its outputs are what they were."""
        self.attempt += 1
        return self._run_workflow(name, self.event, inputs, self.secrets, before)

    def _run_workflow(
        self,
        name: str,
        event: str,
        inputs: dict[str, Any],
        secrets: Mapping[str, str],
        before: dict[str, Job],
        prefix: str = "",
        allowed: Mapping[str, str] | None = None,
    ) -> dict[str, Job]:
        workflow = yaml.safe_load(self.git("show", f"{self.branch}:.github/workflows/{name}"))
        refuse_unknown(workflow, KNOWN_WORKFLOW, name)
        if event not in (workflow[True] if isinstance(workflow[True], dict) else {}):
            raise WorkflowError(f"{name} does not run on {event}")
        contexts = {
            "github": self._github(),
            "inputs": self._inputs(workflow, event, inputs),
            "vars": self.variables,
            "secrets": secrets,
        }
        at_top = Expressions({key: contexts[key] for key in OF_WORKFLOW})
        at_top.fill(workflow.get("run-name", ""))
        group = at_top.fill(workflow.get("concurrency", {}))
        self.groups.append(text(group.get("group", "")))
        with_secrets = Expressions({**at_top.contexts, "secrets": secrets})
        env = {key: text(one) for key, one in with_secrets.fill(workflow.get("env", {})).items()}
        done: dict[str, Job] = {}
        needs: dict[str, Any] = {}
        for key, definition in workflow["jobs"].items():
            if "uses" in definition:
                permissions = definition.get("permissions", workflow.get("permissions", {}))
                done |= self._call(key, definition, contexts, permissions)
                continue
            refuse_unknown(definition, KNOWN_JOB, key)
            _refuse_more(definition, allowed, f"{prefix}{key}")
            wanted = definition.get("needs", [])
            wanted = [wanted] if isinstance(wanted, str) else wanted
            needed = {name: needs[name] for name in wanted}
            made = [job for job in before.values() if job.key == key]
            if not made or any(job.status != "success" for job in made):
                shell = workflow.get("defaults", {}).get("run", {}).get("shell")
                made = self._instances(key, definition, contexts | {"needs": needed}, env, shell, prefix)
            for job in made:
                done[job.name] = job
            results = {job.status for job in made} or {"skipped"}
            result = next(one for one in ("cancelled", "failure", "skipped", "success") if one in results)
            needs[key] = {"result": result, "outputs": made[-1].outputs if made else {}}
        return done

    def _call(
        self, key: str, definition: dict[str, Any], contexts: dict[str, Any], permissions: Mapping[str, str]
    ) -> dict[str, Job]:
        """Run the workflow that a job calls, which is one of the same repository."""
        refuse_unknown(definition, KNOWN_CALL, key)
        place, name = str(definition["uses"]).rsplit("/", 1)
        if place != "$/.github/workflows":
            raise WorkflowError(f"{key}: this runner calls workflows of the same repository only")
        inherited = contexts["secrets"] if definition.get("secrets") == "inherit" else {}
        given = Expressions({one: contexts[one] for one in OF_WORKFLOW}).fill(definition.get("with", {}))
        return self._run_workflow(name, "workflow_call", given, inherited, {}, f"{key} / ", permissions)

    def _github(self) -> dict[str, Any]:
        return {
            "actor": self.actor,
            "triggering_actor": self.triggering_actor or self.actor,
            "ref_name": self.branch,
            "ref": f"refs/heads/{self.branch}",
            "sha": self.git("rev-parse", self.branch),
            "event_name": self.event,
            "repository": "lab/round",
            "run_id": str(self.first_id + self.count),
            "run_attempt": str(self.attempt),
            "server_url": "https://github.invalid",
        }

    def _inputs(self, workflow: dict[Any, Any], event: str, given: dict[str, Any]) -> dict[str, Any]:
        """Check inputs as GitHub does: a call's have the declared type, and the web form makes them so."""
        known = ((workflow[True] or {}).get(event) or {}).get("inputs", {}) if "workflow" in event else {}
        if set(given) - set(known):
            raise WorkflowError(f"there is no input {set(given) - set(known)}")
        for name, value in given.items():
            if event == "workflow_call" and not isinstance(value, KINDS[known[name]["type"]]):
                raise WorkflowError(f"the input {name} is no {known[name]['type']}: {value!r}")
        empty = {"string": "", "boolean": False, "number": None}
        return {name: given.get(name, one.get("default", empty[one["type"]])) for name, one in known.items()}

    def _instances(
        self,
        key: str,
        definition: dict[str, Any],
        contexts: dict[str, Any],
        env: dict[str, str],
        shell: Any,
        prefix: str,
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
            place = f"{self.count}-{self.attempt}-{prefix.replace(' / ', '-')}{key}-{len(made)}"
            job = Job(
                name=f"{prefix}{key} {value}" if name else f"{prefix}{key}",
                key=key,
                folder=self.folder / place,
                definition=definition,
                contexts=here,
            )
            at_job = Expressions({**{one: here[one] for one in OF_JOB}, "secrets": here["secrets"]})
            job.env = {
                **env,
                **{one: text(its) for one, its in at_job.fill(definition.get("env", {})).items()},
            }
            without_secrets = Expressions({one: here[one] for one in OF_JOB})
            for one in ("environment", "name", "runs-on", "timeout-minutes"):
                without_secrets.fill(definition.get(one, ""))
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
        self.run_steps(job, job.definition["steps"], shell)
        for last in job.posts if job.status == "success" else []:
            last()
        steps = job.contexts["steps"]
        expressions = self.expressions(job, {}, steps)
        for name, value in job.definition.get("outputs", {}).items():
            said = text(expressions.fill(value))
            job.outputs[name] = "" if any(one and one in said for one in self.secrets.values()) else said


def _refuse_more(definition: Mapping[str, Any], allowed: Mapping[str, str] | None, where: str) -> None:
    """Refuse a called job that asks for more than its caller may give, as GitHub does beforehand."""
    if allowed is None:
        return
    for name, level in definition["permissions"].items():
        given = allowed.get(name, "none")
        if MAY[level] > MAY[given]:
            raise WorkflowError(
                f"{where} is requesting '{name}: {level}', but is only allowed '{name}: {given}'"
            )
