"""What settle.yml makes of a machine that does not answer: it depends on how its round was left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from ec2_support import REPOSITORY, outcomes, play

LEFT = "Leave a run that was at work when the round left it; the deadline is on its machine"


def rescue() -> dict[str, Any]:
    """Find the playbook's own task."""
    plays = yaml.safe_load((REPOSITORY / "playbooks" / "settle.yml").read_text())
    tasks = [one for each in plays for task in each["tasks"] for one in task.get("rescue", [])]
    [found] = [task for task in tasks if task["name"] == LEFT]
    return dict(found)


@pytest.mark.parametrize(
    ("verdict", "kept"),
    [
        ({}, False),
        ({"left": True}, True),
        ({"detached": True}, True),
        ({"left": True, "failure": "it broke"}, False),
        (None, False),
    ],
)
def test_only_a_run_that_was_left_at_work_is_kept(
    tmp_path: Path, verdict: dict[str, Any] | None, kept: bool
) -> None:
    plain = {"worker": "cpu1", "failure": "", "left": False, "detached": False}
    report = tmp_path / "verdict.json"
    if verdict is not None:
        report.write_text(json.dumps([plain | verdict, plain | {"worker": "other", "left": True}]))
    show = {"name": "settled", "ansible.builtin.debug": {"msg": "{{ round_settled }}"}}
    one = {
        "hosts": "cpu1",
        "gather_facts": False,
        "connection": "local",
        "vars": {"round_report_file": str(report)},
        "tasks": [rescue(), show],
    }
    found = outcomes(play(tmp_path, [one], {"all": {"hosts": {"cpu1": {}}}}), "cpu1")
    [said] = [task["msg"] for task in found if task["task"] == "settled"]
    assert bool(said) is kept
    assert not kept or "its run was left at work" in said
