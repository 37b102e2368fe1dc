"""Every playbook with `--limit WORKER` alone, at an API that is silent: it tries, says so, and fails.

And where no worker is left to it: it says so, and fails.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ec2_support import REPOSITORY
from lab_fleet import lab_fleet

PLAYBOOKS = {
    "run.yml": "The round failed on cpu1",
    "playbooks/status.yml": "Could not look at cpu1",
    "playbooks/logs.yml": "The round failed on cpu1",
    "playbooks/force_stop.yml": "IT MAY STILL BE RUNNING",
    "playbooks/settle.yml": "cannot be read",
    "playbooks/setup.yml": "cannot be read",
    "playbooks/sweep.yml": "cannot be read",
}


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[int, str]]]:
    """Run all of them at once; `localhost` is not among the hosts of any."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        given = {
            "instance_power_endpoint_url": f"http://127.0.0.1:{nobody.getsockname()[1]}",
            "instance_power_access_key": "any",
            "instance_power_secret_key": "any",
            "round_request": "1",
            "workflow_source_repository": str(REPOSITORY),
        }
        database = {"DJ_HOST": "db.invalid", "DJ_USER": "anna", "DJ_PASS": "secret"}
        inventory = lab_fleet(REPOSITORY, tmp_path_factory.mktemp("fleet"))
        words = ["-i", str(inventory), "--limit", "cpu1", "-e", json.dumps(given)]
        yield together(words, **database)


def together(words: list[str], **environment: str) -> dict[str, tuple[int, str]]:
    """Run all playbooks at once with these words; return the exit status of each and what it said."""
    runs = {
        playbook: subprocess.Popen(
            [f"{sys.prefix}/bin/ansible-playbook", playbook, *words],
            cwd=REPOSITORY,
            env=os.environ | environment | {"ANSIBLE_NOCOLOR": "1", "AWS_MAX_ATTEMPTS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for playbook in PLAYBOOKS
    }
    ends = {playbook: " ".join(run.communicate(timeout=600)[0].split()) for playbook, run in runs.items()}
    return {playbook: (runs[playbook].returncode, text) for playbook, text in ends.items()}


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_a_worker_alone_is_limit_enough(said: dict[str, tuple[int, str]], playbook: str) -> None:
    status, text = said[playbook]
    assert status == 2, text
    assert "the EC2 API cannot be reached; check the network" in text, text
    assert PLAYBOOKS[playbook] in text, text
    assert "no hosts matched" not in text


@pytest.mark.parametrize(
    ("words", "other"),
    [(["-i", "inventory/aws"], "playbooks/sweep.yml"), (["-i", "fleet", "--limit", "bystander"], "")],
    ids=["no worker", "another host"],
)
def test_where_no_worker_is_left_nothing_is_taken_for_done(
    tmp_path: Path, words: list[str], other: str
) -> None:
    """As the inventory is shipped, where only a sweep has anything to do; and a wrong limit."""
    fleet = tmp_path / "fleet.yml"
    hosts = {"hosts": {"bystander": {}}, "children": {"workers": {"hosts": {"cpu1": {}}}}}
    fleet.write_text(json.dumps({"all": hosts}))
    words = [str(fleet) if word == "fleet" else word for word in words]
    ends = together([*words, "-e", "instance_power_endpoint_url=http://127.0.0.1:1"])
    for playbook, (status, text) in ends.items():
        if playbook != other:
            assert status != 0, text
            assert "No host of the group workers is left to work on (inventory, --limit)" in text, text
            assert text.count("[ERROR]") == 1, text
