"""What was asked for, checked, and written down as data for ansible-playbook.

`request.py check` checks what can be known early, and says which workers are wanted, which the inventory has,
and the branch's own; `request.py write FILE` writes the variables for the playbooks.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import fleet
from commands import RefusedError, hand_on, refuse

WORKER = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}"
TABLE = r"[A-Za-z0-9_.*?\[\]!-]+"
REF = r"[A-Za-z0-9_][A-Za-z0-9_./+@#-]*"
LEAST_HOURS, MOST_HOURS = 0.5, 168.0


@dataclass(frozen=True)
class Request:
    """One press of the button."""

    workers: list[str]
    tables: list[str]
    restriction: str
    follow: bool
    deadline: float
    follow_hours: float
    join: bool
    dry_run: bool

    @property
    def arguments(self) -> list[str]:
        """Arguments of run_workflow."""
        chosen = [word for table in self.tables for word in ("--tables", table)]
        return ["run", *chosen, *(["--where", self.restriction] if self.restriction else [])]


def own_worker(branch: str) -> str:
    """Name the worker, or the group, of a branch: the branch, with _ for what no secret's name may have."""
    return re.sub(r"\W", "_", branch, flags=re.ASCII)


def read(given: Mapping[str, str]) -> Request:
    """Check the inputs.

    Parameters
    ----------
    given : mapping
        The step's environment: WORKERS, BRANCH, TABLES, RESTRICTION, REF, FOLLOW, DEADLINE, FOLLOW_HOURS,
        JOIN, DRY_RUN.

    Returns
    -------
    Request
        What is wanted; without names of workers or groups it is the branch's own.
    """
    inputs = {name: given.get(name, "").strip() for name in ("WORKERS", "TABLES", "RESTRICTION", "REF")}
    for name, value in inputs.items():
        if not value.isprintable():
            raise RefusedError(
                f"{name.lower()} has an invisible character, such as a line break: give one line"
            )
    if len(inputs["RESTRICTION"]) > 2000:
        raise RefusedError("restriction has more than 2000 characters: make it shorter")
    ref = inputs["REF"]
    if ref and (".." in ref or not re.fullmatch(REF, ref)):
        raise RefusedError(f"ref {ref!r} is no branch, tag or commit id: give one of these")
    return Request(
        workers=_words("workers", inputs["WORKERS"], WORKER, "cpu1 memory1") or [own_worker(given["BRANCH"])],
        tables=_words("tables", inputs["TABLES"], TABLE, "svd.* lds.LDS"),
        restriction=inputs["RESTRICTION"],
        follow=_yes_or_no("follow", given.get("FOLLOW") or "true"),
        deadline=_hours("deadline", given.get("DEADLINE") or "24", LEAST_HOURS, MOST_HOURS),
        follow_hours=_hours("the variable FOLLOW_HOURS", given.get("FOLLOW_HOURS") or "5", 0.0, 5.5),
        join=_yes_or_no("join", given.get("JOIN") or "false"),
        dry_run=_yes_or_no("dry_run", given.get("DRY_RUN") or "false"),
    )


def _words(name: str, text: str, pattern: str, example: str) -> list[str]:
    words = list(dict.fromkeys(re.split(r"[,\s]+", text))) if text else []
    for word in words:
        if not re.fullmatch(pattern, word) or word.startswith("-"):
            raise RefusedError(
                f"{name}: {word!r} is no name of one: give names with spaces between, as {example}"
            )
    return words


def _yes_or_no(name: str, text: str) -> bool:
    if text not in ("true", "false"):
        raise RefusedError(f"{name} is {text!r}: give true or false")
    return text == "true"


def _hours(name: str, text: str, least: float, most: float) -> float:
    try:
        hours = float(text)
    except ValueError:
        hours = -1.0
    if not least <= hours <= most:
        raise RefusedError(f"{name} is {text!r}: give hours, from {least:g} to {most:g}")
    return hours


def variables(request: Request, given: Mapping[str, str]) -> dict[str, object]:
    """Say it in the playbook's words. The run ends before the machine does, with time to build before it."""
    return {
        "round_arguments": request.arguments,
        "round_follow": request.follow,
        "round_request": f"{given['GITHUB_RUN_ID']}-{given['GITHUB_RUN_ATTEMPT']}",
        "round_report_file": f"{given['GITHUB_WORKSPACE']}/report/verdict.json",
        "workflow_source_repository": f"{given['GITHUB_WORKSPACE']}/source",
        "workflow_source_version": "HEAD",
        "workflow_source_ship": True,
        "workflow_run_follow_hours": request.follow_hours,
        "workflow_run_limit_hours": request.deadline - min(1.0, request.deadline / 4),
        "instance_deadline_hours": request.deadline,
        "instance_power_accept_stopping": False,
        "instance_power_join": request.join,
    }


def as_data(value: object) -> str:
    """Write a value as YAML in which Ansible takes no string for a template."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)}: {as_data(one)}" for name, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(as_data(one) for one in value) + "]"
    return ("!unsafe " if isinstance(value, str) else "") + json.dumps(value, ensure_ascii=False)


def check(request: Request, branch: str) -> None:
    """Say which workers are wanted, whether named one by one, by a group, or by the branch."""
    known = fleet.read()
    workers = known.resolve(request.workers)
    hand_on(
        "GITHUB_OUTPUT",
        workers=json.dumps(workers),
        known_workers=" ".join(known.workers),
        own_worker=own_worker(branch),
    )
    print(f"workers: {' '.join(workers)}; run_workflow {json.dumps(request.arguments)}")


def main(arguments: list[str]) -> int:
    """Check, or write."""
    try:
        request = read(os.environ)
        if arguments[0] == "check":
            check(request, os.environ["BRANCH"])
    except RefusedError as error:
        return refuse("The request is refused", error)
    if arguments[0] == "write":
        file = Path(arguments[1])
        file.parent.mkdir(exist_ok=True)
        file.write_text(as_data(variables(request, os.environ)) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
