"""The launcher and the deadline on this machine, where nothing is ever switched off."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from ec2_support import outcomes, refusal, until
from ec2_support import play as play_hosts
from local_rounds import Rounds
from role_support import ROOT, play

POWEROFF = ROOT / "roles" / "instance_deadline" / "files" / "instance_deadline_poweroff"


@pytest.fixture
def rounds(tmp_path: Path) -> Iterator[Rounds]:
    made = Rounds(tmp_path / "home")
    yield made
    subprocess.run([made.home / "rounds" / "current" / "launch", "stop"], check=False, capture_output=True)


def test_words_arrive_as_they_were_given(rounds: Rounds) -> None:
    awkward = ["it's", "a  b", "$HOME", "100%", '"', "", "two\nlines", "\\n"]
    assert rounds.launch("r1", "printf", "<%s>", *awkward).stderr == ""
    assert until(lambda: rounds.read("exit_status")) == "0"
    assert rounds.read("output/log.txt") == "".join(f"<{word}>" for word in awkward)
    assert not (rounds.home / "rounds" / "r1" / "secrets").exists()
    assert rounds.state()["state"] == "ended"
    assert "cause" not in rounds.state()


def test_the_machine_is_switched_off_in_the_end(rounds: Rounds, tmp_path: Path) -> None:
    poweroff = tmp_path / "poweroff"
    poweroff.write_text(f"#!/bin/sh\ntouch '{tmp_path}/off'\n")
    poweroff.chmod(0o755)
    assert rounds.launch("r1", "true", poweroff=str(poweroff)).stderr == ""
    assert until((tmp_path / "off").exists)
    assert rounds.read("exit_status") == "0"


def test_a_second_run_is_refused_while_one_runs_and_a_stop_ends_it(rounds: Rounds) -> None:
    assert rounds.launch("r1", "sh", "-c", "trap 'exit 4' TERM; while :; do sleep 0.1; done").stderr == ""
    assert rounds.state()["state"] == "running"
    refused = rounds.launch("r2", "true")
    assert refused.returncode == 1
    assert f"a round runs on this machine: {rounds.home}/rounds/r1" in refused.stderr
    subprocess.run([rounds.home / "rounds" / "r1" / "launch", "stop"], check=True)
    assert until(lambda: rounds.read("exit_status")) == "4"
    assert "it was asked to stop" in rounds.read("cause")


def test_a_run_that_ignores_its_limit_is_ended(rounds: Rounds) -> None:
    assert rounds.launch("r1", "sh", "-c", "trap '' TERM; while :; do sleep 0.1; done", limit=1).stderr == ""
    assert until(lambda: rounds.read("exit_status")) == "137"
    assert "its time limit of 1 s was reached (workflow_run_limit_hours)" in rounds.read("cause")


def test_an_engine_that_hangs_does_not_keep_the_machine_on(rounds: Rounds, tmp_path: Path) -> None:
    """Docker never answers once the container has been started."""
    docker, poweroff = tmp_path / "shims" / "docker", tmp_path / "poweroff"
    docker.write_text("#!/bin/sh\ncase $1 in create | start) exit ;; esac\nexec sleep 300\n")
    poweroff.write_text(f"#!/bin/sh\ntouch '{tmp_path}/off'\n")
    for file in (docker, poweroff):
        file.chmod(0o755)
    assert rounds.launch("r1", "docker", "create", poweroff=str(poweroff), container="round").stderr == ""
    assert until((tmp_path / "off").exists, 90)
    assert rounds.read("exit_status") == "0"
    assert "the Docker engine does not answer any more" in rounds.read("cause")
    assert not (rounds.home / "rounds" / "r1" / "secrets").exists()


def test_a_launcher_that_is_killed_leaves_a_lost_run(rounds: Rounds) -> None:
    """As long as anything of it is left the machine counts as busy; then the next one may begin."""
    assert rounds.launch("r1", "sleep", "2").stderr == ""
    subprocess.run(["kill", "-9", rounds.read("launcher")], check=True)
    assert rounds.state()["state"] == "running"
    until(lambda: rounds.state()["state"] == "lost")
    assert rounds.launch("r2", "true").stderr == ""
    until(lambda: rounds.state() == rounds.state() | {"round": "r2", "state": "ended"})


def test_without_any_round_there_is_none(tmp_path: Path) -> None:
    assert Rounds(tmp_path).state() == {"state": "none"}


@pytest.mark.parametrize(
    ("identity", "words"),
    [
        (None, "says 'nothing'"),
        ("i-0fedcba9876543210", "says 'i-0fedcba9876543210'"),
        ("", "says 'nothing'"),
        ("i-0123456789abcdef0 i-0fedcba9876543210", "says 'i-0123456789abcdef0 i-0fedcba9876543210'"),
        ("*", "says '*'"),
    ],
)
def test_the_control_node_cannot_be_tricked_into_switching_itself_off(
    tmp_path: Path, identity: str | None, words: str
) -> None:
    """An inventory that takes this machine for an instance: refused when armed, nothing is even kept."""
    own = tmp_path / "instance-id"
    if identity is not None:
        own.write_text(identity + "\n")
    refused = play(
        "instance_deadline",
        tmp_path,
        instance_deadline_instance_id="i-0123456789abcdef0",
        instance_deadline_identity_file=str(own),
        instance_deadline_directory=str(tmp_path / "deadline"),
        instance_deadline_poweroff_command=["touch", str(tmp_path / "off")],
        instance_deadline_hours=0.0001,
    ).refusal()
    assert "does not prove that it is i-0123456789abcdef0" in refused
    assert words in refused
    assert not (tmp_path / "deadline" / "poweroff").exists()
    assert not (tmp_path / "off").exists()


def test_a_connection_that_is_lost_while_the_deadline_is_armed_is_no_success(tmp_path: Path) -> None:
    """As a round has it, which goes on with machines that cannot be reached, to stop them."""

    def role(entry: str) -> dict[str, object]:
        return {"ansible.builtin.import_role": {"name": "instance_deadline", "tasks_from": entry}}

    hosts = {
        "vars": {
            "ansible_connection": "ssh",
            "ansible_host": "127.0.0.1",
            "ansible_port": 1,
            "instance_deadline_instance_id": "i-0123456789abcdef0",
        },
        "hosts": {"arms": {}, "installs": {}, "has_none": {"instance_deadline_instance_id": ""}},
    }
    plays = [
        {"hosts": names, "gather_facts": False, "ignore_unreachable": True, "tasks": [role(entry)]}
        for names, entry in (("arms:has_none", "main"), ("installs:has_none", "install"))
    ]
    report = play_hosts(tmp_path, plays, {"all": hosts})
    for host, words in (("arms", "The deadline is not armed"), ("installs", "The deadline is not installed")):
        reason = "ssh: connect to host 127.0.0.1 port 1: Connection refused."
        assert refusal(report, host) == f"{words}: {reason}"
    assert not [one for one in outcomes(report, "has_none") if one.get("failed")]


def test_cloud_init_is_waited_for_but_not_for_ever(tmp_path: Path) -> None:
    """Here it hangs. One that ends is in the stop drill; most machines of these tests have none."""
    (tmp_path / "cloud-init").write_text(f"#!/bin/sh\necho $@ >{tmp_path}/asked\nexec sleep 60\n")
    (tmp_path / "cloud-init").chmod(0o755)
    one = {
        "hosts": "here",
        "gather_facts": False,
        "connection": "local",
        "vars": {"round_connect_timeout": 1},
        "tasks": [{"ansible.builtin.import_tasks": str(ROOT / "playbooks" / "tasks" / "first_boot.yml")}],
    }
    found = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    report = play_hosts(tmp_path, [one], {"all": {"hosts": {"here": {}}}}, **found)
    assert refusal(report, "here").startswith(
        "cloud-init on here has not finished within 1 s (round_connect_timeout): look at"
    )
    assert (tmp_path / "asked").read_text() == "status --wait\n"


def test_the_deadline_is_installed_once_and_a_dry_run_only_says_so(tmp_path: Path) -> None:
    """The script that stays on the machine is the role's own, to the byte."""
    (tmp_path / "instance-id").write_text("i-0123456789abcdef0\n")
    given = {
        "instance_deadline_instance_id": "i-0123456789abcdef0",
        "instance_deadline_identity_file": str(tmp_path / "instance-id"),
        "instance_deadline_directory": str(tmp_path / "a folder"),
        "instance_deadline_poweroff_command": ["touch", str(tmp_path / "off")],
    }

    def changes(*options: str) -> int:
        done = play("instance_deadline", tmp_path, (), {}, "install", options, **given)
        assert done.status == 0, done.output
        return done.changed

    assert changes("--check") == 1
    assert not (tmp_path / "a folder").exists()
    assert [changes(), changes(), changes("--check")] == [1, 0, 0]
    assert (tmp_path / "a folder" / "poweroff").read_bytes() == POWEROFF.read_bytes()
    assert (tmp_path / "a folder" / "poweroff").stat().st_mode & 0o777 == 0o755


def test_a_full_disk_is_the_reason_why_a_run_is_not_launched(tmp_path: Path) -> None:
    (tmp_path / "launch").symlink_to("/dev/full")
    refused = play(
        "workflow_run",
        tmp_path,
        workflow_run_round="r1",
        workflow_run_directory=str(tmp_path),
        workflow_run_secrets=str(tmp_path / "secrets"),
        workflow_run_artifacts=str(tmp_path / "artifacts"),
        workflow_run_runtime="venv",
        workflow_run_interpreter="/usr/bin/python3",
        workflow_run_source=str(tmp_path),
    ).refusal()
    assert "The run was not launched: cat: write error: No space left on device." in refused


def test_a_machine_whose_identity_changes_is_not_switched_off(tmp_path: Path) -> None:
    """It was armed as it should be; when the moment comes it is another one, as a copied disk would be."""
    own = tmp_path / "instance-id"
    own.write_text("i-0123456789abcdef0\n")
    words = ["", tmp_path / "deadline", "i-0123456789abcdef0", own, 3600, "touch", tmp_path / "off"]
    subprocess.run([POWEROFF, "deadline", *map(str, words)], check=True)
    script = tmp_path / "deadline" / "poweroff"
    try:
        own.write_text("i-0fedcba9876543210\n")
        refused = subprocess.run([script], capture_output=True, text=True, check=False)
        assert refused.returncode == 1
        assert "It is not switched off" in refused.stderr
        assert not (tmp_path / "off").exists()
        own.write_text("i-0123456789abcdef0\n")
        subprocess.run([script], check=True)
        assert (tmp_path / "off").exists()
    finally:
        armed = tmp_path / "deadline" / "armed"
        timer = until(lambda: armed.exists() and armed.read_text().strip())
        os.killpg(int(timer), signal.SIGKILL)
