"""What is done from elsewhere while a machine is on: dry runs only look, and nothing waits for long.

The instances are emulated, and their machines are this one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ec2_support import REPOSITORY, emulator, outcomes, play, started, state
from local_rounds import Rounds

DEAF = {"deaf_status": "status", "deaf_settle": "settle", "deaf_stop": "force_stop"}
IDS = {name: f"i-{number:08x}" for number, name in enumerate(("busy", "idle", *DEAF), start=0xD0)}
ROUND = "20260101T000000Z-0123456"


class Fleet:
    """The instances, and what is run on them."""

    def __init__(self, folder: Path, ec2: Any) -> None:
        self.folder, self.ec2 = folder, ec2
        self.busy = Rounds(folder / "busy")

    def play(self, playbook: str, worker: str, *options: str) -> subprocess.Popen[str]:
        """Run a playbook on one worker."""
        program = str(Path(sys.executable).with_name("ansible-playbook"))
        words = ["-i", str(self.folder / "hosts.yml"), "--limit", worker, "-e", "round_request=7"]
        return subprocess.Popen(
            [program, f"playbooks/{playbook}.yml", *words, *options],
            cwd=REPOSITORY,
            env=os.environ | {"ANSIBLE_NOCOLOR": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def said(self, run: subprocess.Popen[str], status: int) -> str:
        """Wait for its end; return what it said, on one line."""
        text = " ".join(run.communicate(timeout=300)[0].split())
        assert run.returncode == status, text
        return text


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """All instances are on; one works on a round, one does nothing, the others do not answer."""
    folder = tmp_path_factory.mktemp("watching")
    with emulator(folder / "ec2", [{"id": id_, "name": name} for name, id_ in IDS.items()]) as ec2:
        for id_ in IDS.values():
            started(ec2, id_)
        tags = {"round": ROUND, "round_owner": "anna", "round_request": "7"}
        given = [{"Key": key, "Value": value} for key, value in tags.items()]
        ec2.create_tags(Resources=list(IDS.values()), Tags=given)
        silent = {
            "ansible_connection": "ssh",
            "ansible_host": "127.0.0.1",
            "ansible_port": 1,
            "instance_power_poll_seconds": 4,
            "instance_power_known_hosts": str(folder / "known_hosts"),
        }
        hosts = {
            name: {
                "instance_power_instance_id": id_,
                "round_home": str(folder / name),
                **(silent if name in DEAF else {}),
            }
            for name, id_ in IDS.items()
        }
        variables = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "instance_power_endpoint_url": ec2.meta.endpoint_url,
            "instance_power_region": "eu-west-1",
            "instance_power_access_key": "any",
            "instance_power_secret_key": "any",
            "instance_power_poll_seconds": 0.5,
            "round_artifacts": str(folder / "artifacts"),
        }
        listed = {"vars": variables, "children": {"workers": {"hosts": hosts}}}
        (folder / "hosts.yml").write_text(json.dumps({"all": listed}))
        made = Fleet(folder, ec2)
        work = "trap 'exit 4' TERM; while :; do sleep 0.1; done"
        assert made.busy.launch(ROUND, "sh", "-c", work, limit=600).stderr == ""
        yield made
        subprocess.run([folder / "busy" / "rounds" / "current" / "launch", "stop"], check=False)


def test_a_dry_run_of_logs_finds_the_run_and_leaves_it_alone(fleet: Fleet) -> None:
    said = fleet.said(fleet.play("logs", "busy", "--check"), 0)
    assert "busy: still running" in said
    assert "a dry run" in said
    assert not (fleet.folder / "artifacts").exists()
    left = {path.name for path in (fleet.folder / "busy" / "rounds" / ROUND).iterdir()}
    assert not left & {"followers", "collected"}
    assert fleet.busy.state()["state"] == "running"


def test_a_dry_run_of_settle_says_what_would_be_stopped(fleet: Fleet) -> None:
    said = fleet.said(fleet.play("settle", "idle", "--check"), 0)
    assert "idle: it is on and nothing runs on it; it would be stopped" in said
    assert state(fleet.ec2, IDS["idle"]) == "running"
    assert "idle: it was on and nothing ran on it; it is stopped now" in fleet.said(
        fleet.play("settle", "idle"), 0
    )
    assert state(fleet.ec2, IDS["idle"]) == "stopped"


def test_setup_does_not_touch_a_machine_on_which_a_round_is(fleet: Fleet) -> None:
    said = fleet.said(fleet.play("setup", "busy", "-e", "instance_power_join=true"), 2)
    assert "A round is on busy, and what setup changes could end it" in said
    assert state(fleet.ec2, IDS["busy"]) == "running"
    assert fleet.busy.state()["state"] == "running"


def test_a_machine_that_shows_no_keys_is_not_waited_for_long(fleet: Fleet) -> None:
    """Least of all by force_stop: whoever presses it wants the machine off."""
    began = time.monotonic()
    runs = {name: fleet.play(playbook, name) for name, playbook in DEAF.items()}
    said = {name: fleet.said(run, 2 if name == "deaf_status" else 0) for name, run in runs.items()}
    assert time.monotonic() - began < 120
    for name, text in said.items():
        assert f"{IDS[name]} shows no SSH host keys in its console output within 20 s" in text, text
    assert {name: state(fleet.ec2, IDS[name]) for name in DEAF} == {
        "deaf_status": "running",
        "deaf_settle": "stopped",
        "deaf_stop": "stopped",
    }
    assert f"{IDS['deaf_stop']} of deaf_stop is stopped" in said["deaf_stop"]
    assert "the run could not be asked" in said["deaf_stop"]


def test_force_stop_gives_a_run_its_grace_and_a_minute(tmp_path: Path) -> None:
    """Then it stops the machine, whether or not the run has ended; however the grace is given."""
    plays = yaml.safe_load((REPOSITORY / "playbooks" / "force_stop.yml").read_text())
    [ask] = [
        task
        for one in plays
        for block in one["tasks"]
        for task in block["block"]
        if task["name"] == "Ask the run to stop, and wait until it has"
    ]
    show = {
        "name": "limit",
        "ansible.builtin.debug": {"msg": "{{ workflow_run_follow_hours | float * 3600 }}"},
    }
    one = {"hosts": "cpu1", "gather_facts": False, "tasks": [show | {"vars": ask["vars"]}]}
    report = play(tmp_path, [one], {"all": {"hosts": {"cpu1": {}}}}, "-e", "workflow_run_grace_seconds=90")
    [limit] = [float(task["msg"]) for task in outcomes(report, "cpu1") if task["task"] == "limit"]
    assert limit == pytest.approx(2 * 90 + 60)
