"""An instance that cannot be reached is refused before minutes are paid for waiting."""

from __future__ import annotations

from pathlib import Path

import pytest
from ec2_support import REPOSITORY, outcomes, play, refusal


@pytest.mark.parametrize(
    ("private", "words"),
    [
        (False, "i-0123 has no public address: set instance_power_use"),
        (True, "i-0123 has no private address"),
    ],
)
def test_an_instance_without_an_address(tmp_path: Path, private: bool, words: str) -> None:
    given = {
        "instance_power_found_id": "i-0123",
        "instance_power_address": "",
        "instance_power_use_private_address": private,
        "round_connect_timeout": 600,
    }
    answer = {"ansible.builtin.import_tasks": str(REPOSITORY / "playbooks" / "tasks" / "answer.yml")}
    report = play(
        tmp_path,
        [{"hosts": "all", "gather_facts": False, "tasks": [answer]}],
        {"all": {"hosts": {"cpu1": {}}, "vars": given}},
    )
    assert words in refusal(report, "cpu1")
    assert len(outcomes(report, "cpu1")) == 1
