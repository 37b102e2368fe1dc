"""Runs a workflow file as GitHub would, job by job: inputs, contexts, needs, matrix, outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml
from expressions import Expressions, text
from jobs import Job, WorkflowError, refuse_unknown
from steps import StepRunner

KNOWN_JOB = {
    *("name", "runs-on", "timeout-minutes", "permissions", "outputs", "steps", "needs", "environment"),
    *("strategy", "concurrency", "env", "if"),
}
KNOWN_WORKFLOW = {"name", "run-name", True, "permissions", "concurrency", "defaults", "env", "jobs"}
#: Which contexts GitHub knows where; an expression that uses another one is an error there as here.
OF_WORKFLOW = ("github", "inputs", "vars")
OF_JOB = ("github", "needs", "inputs", "vars", "matrix", "strategy")


@dataclass
class Runner(StepRunner):
    """Runs workflows of one repository."""

    actor: str = "anna"
    triggering_actor: str = ""
    branch: str = "main"
    event: str = "workflow_dispatch"
    count: int = 0

    def run(self, name: str, **inputs: Any) -> dict[str, Job]:
        """Run a workflow to its end; return its jobs by name."""
        self.count += 1
        workflow = yaml.safe_load(self.git("show", f"{self.branch}:.github/workflows/{name}"))
        refuse_unknown(workflow, KNOWN_WORKFLOW, name)
        contexts = {
            "github": self._github(),
            "inputs": self._inputs(workflow, inputs),
            "vars": self.variables,
            "secrets": self.secrets,
        }
        at_top = Expressions({key: contexts[key] for key in OF_WORKFLOW})
        at_top.fill(workflow.get("run-name", ""))
        at_top.fill(workflow.get("concurrency", {}))
        with_secrets = Expressions({**at_top.contexts, "secrets": self.secrets})
        env = {key: text(one) for key, one in with_secrets.fill(workflow.get("env", {})).items()}
        done: dict[str, Job] = {}
        needs: dict[str, Any] = {}
        for key, definition in workflow["jobs"].items():
            refuse_unknown(definition, KNOWN_JOB, key)
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
        self.run_steps(job, job.definition["steps"], shell)
        steps = job.contexts["steps"]
        expressions = self.expressions(job, {}, steps)
        for name, value in job.definition.get("outputs", {}).items():
            said = text(expressions.fill(value))
            job.outputs[name] = "" if any(one and one in said for one in self.secrets.values()) else said
