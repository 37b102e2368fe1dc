"""The run as a systemd unit, and the deadline as a timer, on a machine that really powers off."""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import ec2_support as ec2
import pytest
import yaml
from booted import INSTANCE, Booted, booted
from jinja2 import Template

sys.path.insert(0, str(ec2.REPOSITORY / "roles" / "workflow_run" / "action_plugins"))
import workflow_follow

ROLES = ec2.REPOSITORY / "roles"
HOME = "/var/lib/datajoint-round/rounds"
DEADLINE = "/var/lib/instance-deadline"
IDENTITY = "/var/lib/cloud/data/instance-id"


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    with booted(tmp_path_factory.mktemp("ec2")) as machine:
        yield machine


@pytest.fixture
def machine(one: Booted) -> Booted:
    """The machine, running, with a deadline of an hour and the launcher at hand."""
    one.on()
    one.put(ROLES / "workflow_run" / "files" / "workflow_run_launch", "/root/launch")
    one.put(ROLES / "instance_deadline" / "files" / "instance_deadline_poweroff", "/root/poweroff")
    one.run("rm", "-rf", HOME)
    arm(one, 3600)
    return one


def arm(machine: Booted, seconds: int, instance: str = INSTANCE, check: bool = True) -> str:
    words = ("deadline", "", DEADLINE, instance, IDENTITY, seconds, "systemctl", "poweroff")
    return machine.run("/root/poweroff", *words, check=check)


def launch(
    machine: Booted, name: str, script: str, limit: int = 600, grace: int = 5, collect: int = 1
) -> str:
    machine.run("mkdir", "-p", f"{HOME}/{name}/secrets")
    machine.run("cp", "/root/launch", f"{HOME}/{name}/launch")
    words = ("", f"{HOME}/{name}/secrets", limit, grace, collect, "", f"{DEADLINE}/poweroff", "")
    return machine.run(f"{HOME}/{name}/launch", "start", *words, "sh", "-c", script, check=False)


def read(machine: Booted, name: str) -> dict[str, str]:
    """Read the round's files from the disk of the machine, which is off, by starting it again."""
    machine.on()
    return {
        file: machine.run("cat", f"{HOME}/{name}/{file}", check=False).strip()
        for file in ("exit_status", "cause", "output/log.txt")
    }


def test_a_run_that_succeeds_switches_the_machine_off(machine: Booted) -> None:
    """Arguments arrive as they are, the log is in the journal too, the credentials are gone."""
    said = launch(machine, "20260101T000000Z-0000001", 'echo "it\'s $0 100%"; sleep 3; echo last; exit 0')
    assert said == ""
    shown = machine.run(
        "systemctl", "show", "datajoint-round", "--property=SuccessAction,FailureAction,RuntimeMaxUSec"
    )
    assert "SuccessAction=poweroff" in shown
    assert "FailureAction=poweroff" in shown
    assert "RuntimeMaxUSec=10min 20s" in shown
    again = launch(machine, "20260101T000000Z-0000002", "exit 0")
    assert "a round runs on this machine" in again
    assert "20260101T000000Z-0000001" in again
    machine.off()
    assert machine.reason().startswith("Client.InstanceInitiatedShutdown")
    found = read(machine, "20260101T000000Z-0000001")
    assert found["exit_status"] == "0"
    assert found["output/log.txt"] == "it's sh 100%\nlast"
    journal = machine.run("journalctl", "--unit=datajoint-round", "--output=cat")
    assert "it's sh 100%" in journal
    assert "last" in journal
    assert not machine.run("find", f"{HOME}/current/", "-name", "secrets")
    assert machine.run("readlink", f"{HOME}/current").strip() == "20260101T000000Z-0000001"


def test_a_run_that_is_killed_says_so_and_switches_the_machine_off(machine: Booted) -> None:
    """The launcher itself is killed: systemd ends what is left, and the end is recorded nevertheless."""
    assert launch(machine, "20260101T000000Z-0000003", "sleep 600 & sleep 600") == ""
    machine.run("sh", "-c", f"kill -9 $(cat {HOME}/current/launcher)")
    machine.off()
    found = read(machine, "20260101T000000Z-0000003")
    assert found["exit_status"] == "137"
    assert "memory" in found["cause"]


def test_a_run_that_hangs_is_ended_at_its_limit(machine: Booted) -> None:
    assert launch(machine, "20260101T000000Z-0000004", "trap '' TERM; while :; do sleep 1; done", 2, 1) == ""
    machine.off()
    found = read(machine, "20260101T000000Z-0000004")
    assert found["exit_status"] == "137"
    assert "time limit of 2 s" in found["cause"]
    assert "workflow_run_limit_hours" in found["cause"]


def test_a_disk_that_fills_during_the_run_is_said_to_have(machine: Booted) -> None:
    """What cannot be written there any more is found all the same, by those who follow and those who ask."""
    name = "20260101T000000Z-0000006"
    machine.run("mkdir", "-p", HOME)
    machine.run("mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", HOME)
    assert launch(machine, name, "cat /dev/zero >output/all; exit 1", collect=60) == ""
    machine.put(ROLES / "workflow_run" / "files" / "workflow_run_state", "/root/state")
    told = ec2.until(
        lambda: [s for s in [machine.run("/root/state", str(Path(HOME).parent), 1)] if "ended=" in s]
    )
    assert "state=ended" in told[0]
    assert "exit_code=1" in told[0]
    assert f"cause=the disk of the machine is full ({HOME}/{name}): free space there" in told[0]
    follower = workflow_follow.ActionModule(SimpleNamespace(), None, None, None, None, None)
    follower._me = "me"
    last = machine.run("sh", "-c", follower._fill(workflow_follow.SCRIPT, f"{HOME}/{name}"))
    said = dict(line.split(" ", 1) for line in last.splitlines())
    assert said["status"] == "1"
    assert b"the disk of the machine is full" in base64.b64decode(said["cause"])
    assert machine.run("ls", f"{HOME}/{name}/exit_status", check=False).startswith("ls: cannot access")
    machine.run("sh", "-c", follower._fill(workflow_follow.DONE, f"{HOME}/{name}"), check=False)
    machine.off(20)


def test_the_deadline_passes_during_a_run(machine: Booted) -> None:
    """Nobody is connected; the run is asked to stop, and why is on the disk."""
    assert (
        launch(machine, "20260101T000000Z-0000005", "trap 'exit 4' TERM; while :; do sleep 0.1; done") == ""
    )
    arm(machine, 2)
    machine.off()
    assert machine.reason().startswith("Client.InstanceInitiatedShutdown")
    found = read(machine, "20260101T000000Z-0000005")
    assert found["exit_status"] == "4"
    assert "switched off (deadline" in found["cause"]


def test_the_deadline_survives_a_reboot(machine: Booted) -> None:
    arm(machine, 25)
    before = machine.run("stat", "-c", "%Y", "/proc/1")
    machine.run("systemctl", "reboot", check=False)
    ec2.until(lambda: machine.run("stat", "-c", "%Y", "/proc/1", check=False) not in (before, ""), 20)
    machine.off()
    assert machine.reason().startswith("Client.InstanceInitiatedShutdown")


def test_every_boot_has_a_deadline_of_its_own(machine: Booted) -> None:
    """A passed one neither ends a machine that was started again nor leaves it without one."""
    arm(machine, 2)
    machine.off()
    machine.on()
    timers = machine.run(
        "systemctl", "show", "instance-deadline.timer", "--property=ActiveState,NextElapseUSecMonotonic"
    )
    assert "ActiveState=active" in timers
    assert "NextElapseUSecMonotonic=infinity" not in timers


def test_a_deadline_ends_with_what_it_was_for(machine: Booted) -> None:
    """The next round may start shortly before the last one's deadline, which must not cut it short."""
    round_of = "/etc/systemd/system/instance-deadline.timer.d/round.conf"
    assert machine.run("stat", "-c", "%n", round_of) == f"{round_of}\n"
    machine.run("systemctl", "poweroff", check=False)
    machine.off(20)
    machine.on()
    assert machine.run("stat", "-c", "%n", round_of, check=False) != f"{round_of}\n"
    assert machine.run("systemctl", "is-active", "instance-deadline.timer") == "active\n"


def test_a_new_instance_has_a_deadline_at_its_first_boot(machine: Booted) -> None:
    """What cloud-init is told to run at the first boot of one that has just been created."""
    template = (ROLES / "worker_fleet" / "templates" / "user_data.j2").read_text()
    [command] = yaml.safe_load(Template(template).render(worker_fleet_hours=2 / 3600))["runcmd"]
    machine.run(*command)
    machine.off()
    assert machine.reason().startswith("Client.InstanceInitiatedShutdown")


def test_another_instance_is_neither_armed_nor_switched_off(machine: Booted) -> None:
    """A wrong id in the inventory; and an armed machine whose identity has changed since."""
    refused = arm(machine, 2, "i-0000000000000dead", check=False)
    assert f"does not prove that it is i-0000000000000dead: {IDENTITY} says '{INSTANCE}'" in refused
    machine.run("sh", "-c", f"echo i-0000000000000dead > {IDENTITY}")
    try:
        refused = machine.run(f"{DEADLINE}/poweroff", check=False)
        assert f"does not prove that it is {INSTANCE}" in refused
        assert launch(machine, "20260101T000000Z-0000006", "sleep 1; exit 3") == ""
        shown = machine.run("systemctl", "show", "datajoint-round", "--property=SuccessAction,FailureAction")
        assert "poweroff" not in shown
        ec2.until(lambda: machine.run("cat", f"{HOME}/current/exit_status", check=False) == "3\n")
        ec2.until(lambda: "inactive" in machine.run("systemctl", "is-active", "datajoint-round", check=False))
        assert machine.state() == "running"
    finally:
        machine.run("sh", "-c", f"echo {INSTANCE} > {IDENTITY}")


def test_installing_the_deadline_changes_nothing_the_second_time(machine: Booted) -> None:
    words = ("install", DEADLINE, INSTANCE, IDENTITY, 7200, "systemctl", "poweroff")
    assert machine.run("/root/poweroff", *words, DRY="yes") == "changed\n"
    assert machine.run("/root/poweroff", *words) == "changed\n"
    before = machine.run("cat", "/etc/systemd/system/instance-deadline.timer.d/round.conf")
    assert machine.run("/root/poweroff", *words) == ""
    assert machine.run("/root/poweroff", *words, DRY="yes") == ""
    assert machine.run("cat", "/etc/systemd/system/instance-deadline.timer.d/round.conf") == before
