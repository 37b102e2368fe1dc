"""First-time provisioning over SSH, on a bare emulated machine: once, again, and as a dry run.

And what it is for: a machine that was set up switches itself off, though nobody has connected to it since.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from booted import Booted
from control_node import ControlNode
from ec2_machines import engine_or_skip, machine_image, machines, remove
from ec2_support import until
from project import ROOT

WORKER = "i-0000000000000a001"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN0000000000000000000000000000000000000000 anna@example.org"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    engine_or_skip()
    home = tmp_path_factory.mktemp("setup")
    try:
        with machines(home / "ec2", [{"id": WORKER}], machine_image(bare=True)) as cloud:
            yield Booted(cloud.ec2, cloud.folder, WORKER)
    finally:
        remove(home / "ec2")


def command(machine: Booted, playbook: str, *options: str, **variables: object) -> list[str]:
    """The command line of a playbook for the machine."""
    given = {
        "sandbox_home": str(machine.directory.parent),
        "ec2_emulator_key_file": str(machine.directory / "key"),
        **variables,
    }
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    return [program, "-i", "inventory/rehearsal", playbook, "-e", json.dumps(given), *options]


def setup(machine: Booted, *options: str, **variables: object) -> tuple[int, int, str]:
    """Run the playbook; return its exit status, how many tasks changed the worker, and what it said."""
    given = {"worker_setup_authorized_keys": [KEY], **variables}
    numbers = ("-e", "worker_setup_minimum_free_gb=0.1 worker_setup_swap_gb=0")  # as words
    done = subprocess.run(
        command(machine, "playbooks/setup.yml", *numbers, *options, **given),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    output = done.stdout + done.stderr
    changes = re.findall(
        r"^TASK \[(?:worker_setup|instance_deadline) : ([^]]*)\] \**\nchanged", output, re.MULTILINE
    )
    return done.returncode, len(changes), output


def test_a_control_node_that_is_killed_before_it_could_arm_the_deadline(machine: Booted) -> None:
    """Setup, before it refused, gave every boot a deadline of a minute; the round would have armed 24 h."""
    status, _, output = setup(machine, worker_setup_minimum_memory_gb=100000.0, instance_deadline_hours=0.015)
    assert status == 2, output
    assert "take a larger instance type, or set worker_setup_swap_gb" in " ".join(output.split())
    assert machine.state() == "stopped"

    log = machine.directory / "server.log"
    before = log.read_text().count("StartInstances")
    unused = {"host": "nowhere.invalid", "port": 1, "user": "x", "password": "x", "database_name": "x"}
    node = ControlNode(
        command(
            machine,
            "run.yml",
            embedded_database_directory="",
            round_prepare_command=[],
            **{f"workflow_settings_{name}": value for name, value in unused.items()},
        ),
        ROOT,
    )
    until(lambda: log.read_text().count("StartInstances") > before or node.process.poll() is not None, 300)
    node.kill()
    assert log.read_text().count("StartInstances") > before, node.output[-3000:]
    until(lambda: machine.state() == "running")
    machine.off(180)
    assert machine.reason().startswith("Client.InstanceInitiatedShutdown")


def test_setup_changes_a_machine_once(machine: Booted) -> None:
    """A bare machine gets its packages; then a dry run and a real one find nothing to do.

    The last time no round has started it, as one that has just been created: it is stopped afterwards too.
    """
    status, changes, output = setup(machine)
    assert status == 0, output
    assert changes >= 2, output
    assert "UNREACHABLE" not in output
    restarted = output.index("RUNNING HANDLER [worker_setup : Restart the Docker Engine]")
    assert restarted < output.index("Ask the Docker engine who it is"), "its settings are tried as well"
    assert machine.state() == "stopped"

    machine.on()
    assert "max-size" in machine.run("cat", "/etc/docker/daemon.json")
    assert KEY in machine.run("cat", "/home/ubuntu/.ssh/authorized_keys")
    assert machine.run("systemctl", "is-active", "instance-deadline.timer") == "active\n"
    status, changes, output = setup(machine, "--check", instance_power_join=True)
    assert (status, changes) == (0, 0), output
    assert machine.state() == "running"
    machine.api.delete_tags(Resources=[WORKER], Tags=[{"Key": "round"}])
    status, changes, output = setup(machine, instance_power_join=True)
    assert (status, changes) == (0, 0), output
    assert machine.state() == "stopped"
