"""The stop drill: whatever goes wrong, the instance is stopped, nothing is lost, the message says what to do.

One emulated machine that boots, one database. The rounds that fail come first and leave their keys due; the
last ones compute them. The other cases, and where they are proven:

- populate succeeds; clone or build fails; disk full; the Docker daemon dies; SSH drops and returns;
  credentials expire while following; an instance hangs in stopping; capacity never comes; the deadline passes
  during a build; the control node is killed during a build; its clock is two hours slow: test_fleet_drill.py
- some keys fail; the control node is killed before launch; the database is down at the start; a second round
  on a busy worker: test_round.py
- the database is lost during the run: test_lost_database.py
- a stop that cannot be confirmed; two rounds at the same moment: tests/integration/test_instance_power.py
- the sweep (orphan, held, healthy): tests/integration/test_sweep.py
- the unit and the deadline by themselves: tests/integration/test_unit_of_a_round.py
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from booted import Booted
from control_node import ControlNode
from ec2_machines import BASE, Machines, engine_or_skip, machine_image, remove
from ec2_support import emulator, until
from project import Project

WORKER = "i-0000000000000a001"


class Drill:
    """The machine, the database, and the control nodes that work on them."""

    def __init__(self, project: Project, home: Path, cloud: Machines) -> None:
        self.project = project
        self.home = home
        self.cloud = cloud
        self.machine = Booted(cloud.ec2, cloud.folder, WORKER)
        self.nodes: list[ControlNode] = []

    def play(self, playbook: str = "run.yml", *options: str, **variables: Any) -> ControlNode:
        """Run a playbook on the machine."""
        given = {
            "ec2_emulator_key_file": str(self.cloud.folder / "key"),
            "workflow_image_runtime": "docker",
            "workflow_run_grace_seconds": 5,
            "workflow_run_collect_seconds": 10,
        }
        command = self.project.command(self.home, given | variables, "rehearsal")
        command[command.index("run.yml")] = playbook
        self.nodes.append(ControlNode([*command, *options], self.project.folder))
        return self.nodes[-1]

    def container(self, node: ControlNode) -> str:
        """Wait for the round's container; return its id."""
        look = ("docker", "ps", "--quiet", "--filter", "label=datajoint-round")

        def running() -> list[str]:
            return re.findall(r"^[0-9a-f]{12}$", self.machine.run(*look, check=False), re.MULTILINE)

        until(lambda: running() or node.process.poll() is not None, 900)
        found = running()
        assert len(found) == 1, node.output[-3000:]
        return found[0]

    def summary(self) -> dict[str, Any]:
        """Read the results that came home last."""
        latest = max((self.home / "artifacts").glob("*/rehearsal1/summary.json"))
        summary: dict[str, Any] = json.loads(latest.read_text())
        return summary


@pytest.fixture(scope="module")
def drill(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drill]:
    engine_or_skip()
    home = tmp_path_factory.mktemp("drill")
    try:
        options = (
            "--backend=container",
            f"--image={machine_image(BASE)}",
            f"--key-file={home / 'ec2' / 'key'}",
            f"--ca-bundle={os.environ.get('PIP_CERT', '')}",
            "--grace=20",
        )
        with emulator(home / "ec2", [{"id": WORKER}], *options) as ec2:
            made = Drill(project, home, Machines(ec2, home / "ec2"))
            yield made
            for node in made.nodes:
                if node.process.poll() is None:
                    node.kill()
    finally:
        remove(home / "ec2")
        program = project.folder / "roles" / "embedded_database" / "files" / "embedded_database.py"
        subprocess.run([sys.executable, program, "stop", "--directory", home / "database"], check=False)


def fake_cloud_init(folder: Path) -> Path:
    """Stands for cloud-init, which the emulated machines lack; it keeps what it is asked."""
    file = folder / "cloud-init"
    file.write_text('#!/bin/sh\necho "$@" >>/var/lib/cloud-init-was-asked\n')
    file.chmod(0o755)
    return file


def test_a_container_that_is_killed(drill: Drill) -> None:
    node = drill.play()
    container = drill.container(node)
    shown = drill.machine.run(
        "systemctl", "show", "datajoint-round", "--property=SuccessAction,FailureAction"
    )
    assert shown == "FailureAction=poweroff\nSuccessAction=poweroff\n"
    timer = drill.machine.run("systemctl", "show", "instance-deadline.timer", "--property=TimersCalendar")
    assert "OnCalendar" in timer
    drill.machine.put(fake_cloud_init(drill.home), "/usr/local/bin/cloud-init")
    drill.machine.run("docker", "kill", "--signal=KILL", container)
    assert node.end() == 2, node.output[-3000:]
    assert drill.machine.state() == "stopped"
    assert "it was killed (exit status 137), most often because memory ran out" in node.output
    assert "take a larger instance or fewer processes" in node.output


def test_a_container_that_hangs_past_its_limit(drill: Drill) -> None:
    node = drill.play(workflow_run_limit_hours=0.003, workflow_run_grace_seconds=2)
    drill.machine.run("docker", "pause", drill.container(node))
    assert drill.machine.run("cat", "/var/lib/cloud-init-was-asked") == "status --wait\n"
    assert node.end() == 2, node.output[-3000:]
    assert drill.machine.state() == "stopped"
    assert "its time limit of 10 s was reached (workflow_run_limit_hours)" in node.output


def test_a_connection_that_is_lost_for_good(drill: Drill) -> None:
    """The control node gives up, stops the instance through the API, and says what happened."""
    node = drill.play(workflow_run_patience_seconds=3)
    drill.machine.run("docker", "pause", drill.container(node))
    drill.cloud.order({"machine": "no_network", "instance": WORKER})
    assert node.end() == 2, node.output[-3000:]
    assert drill.machine.state() == "stopped"
    assert drill.machine.reason().startswith("Client.UserInitiatedShutdown")
    assert "the connection to rehearsal1 was lost for 3 s" in node.output
    assert "what the run had not done is due again" in " ".join(node.output.split())


def test_force_stop_while_a_key_is_computed(drill: Drill) -> None:
    """The run puts back what it works on and its results come home; then the instance is stopped."""
    node = drill.play()
    slow = drill.container(node)
    drill.machine.run("docker", "update", "--cpus", "0.2", slow)
    node.says("rehearsal1 | ")
    stop = drill.play("playbooks/force_stop.yml")
    stop.says("Ask the run to stop")
    drill.machine.run("docker", "update", "--cpus", "2", slow, check=False)
    assert stop.end() == 0, stop.output[-3000:]
    assert node.end() == 2, node.output[-3000:]
    assert drill.machine.state() == "stopped"
    assert "of rehearsal1 is stopped" in stop.output
    assert "it was asked to stop (force_stop)" in node.output + stop.output


def test_a_control_node_that_is_killed_while_it_follows(drill: Drill) -> None:
    """The run goes on alone, computes all that is due, and its machine switches itself off."""
    node = drill.play()
    drill.container(node)
    node.says("Follow the log")
    node.kill()
    assert drill.machine.state() == "running"
    status = drill.play("playbooks/status.yml", "--limit", "rehearsal1")
    assert status.end() == 0, status.output[-3000:]
    assert "rehearsal1 (i-0000000000000a001): " in status.output
    drill.machine.off(300)
    assert drill.machine.reason().startswith("Client.InstanceInitiatedShutdown")


def test_nothing_was_lost_and_a_round_that_is_not_followed_can_be_followed_later(drill: Drill) -> None:
    """Launched and left alone, then followed from a second control node to its end and its results."""
    node = drill.play("run.yml", "-e", "follow=false", workflow_run_collect_seconds=120)
    assert node.end() == 0, node.output[-3000:]
    assert "it runs on alone" in node.output
    assert drill.machine.state() == "running"
    logs = drill.play("playbooks/logs.yml")
    assert logs.end() == 0, logs.output[-3000:]
    assert "rehearsal1 | " in logs.output
    assert drill.machine.state() == "stopped"
    assert drill.summary()["verdict"] == "succeeded"
    assert drill.summary()["message"] == "nothing was due"
