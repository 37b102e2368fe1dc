"""First-time provisioning over SSH, on an emulated machine: once, again, and as a dry run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from booted import Booted
from ec2_machines import engine_or_skip, machine_image, machines, remove
from project import ROOT

WORKER = "i-0000000000000a001"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN0000000000000000000000000000000000000000 anna@example.org"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    engine_or_skip()
    home = tmp_path_factory.mktemp("setup")
    try:
        with machines(home / "ec2", [{"id": WORKER}], machine_image()) as cloud:
            yield Booted(cloud.ec2, cloud.folder, WORKER)
    finally:
        remove(home / "ec2")


def setup(machine: Booted, *options: str, **variables: object) -> tuple[int, int, str]:
    """Run the playbook; return its exit status, how many tasks changed the worker, and what it said."""
    given = {
        "sandbox_home": str(machine.directory.parent),
        "ec2_emulator_key_file": str(machine.directory / "key"),
        "worker_setup_authorized_keys": [KEY],
        "worker_setup_minimum_free_gb": 0.1,
        **variables,
    }
    done = subprocess.run(
        [
            Path(sys.executable).with_name("ansible-playbook"),
            *("-i", "inventory/rehearsal", "playbooks/setup.yml", "-e", json.dumps(given), *options),
        ],
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


def test_setup_changes_a_machine_once(machine: Booted) -> None:
    """Too little memory is refused; then it is set up; then a dry run and a real one find nothing to do.

    The last time no round has started it, as one that has just been created: it is stopped afterwards too.
    """
    status, changes, output = setup(machine, worker_setup_minimum_memory_gb=100000.0)
    assert status == 2, output
    assert "take a larger instance type, or set worker_setup_swap_gb" in " ".join(output.split())
    assert machine.state() == "stopped"

    status, changes, output = setup(machine)
    assert status == 0, output
    assert changes >= 2, output
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
