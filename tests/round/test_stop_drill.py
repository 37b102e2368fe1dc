"""The stop drill: whatever goes wrong, the instance is stopped, nothing is lost, the message says what to do.

One emulated machine that boots, one database with one small queue. The rounds that fail come first, each with
keys in hand; the last ones compute what those have left. The other cases, and where they are proven:

- populate succeeds; clone or build fails; disk full; the Docker daemon dies; SSH drops and returns, or drops
  for good during a build; the database is down at the start; credentials expire while following; an instance
  hangs in stopping; capacity never comes; the deadline passes during a build; the control node is killed
  during a build; its clock is two hours slow: test_fleet_drill.py
- the control node is killed before launch: test_round.py
- the control node is killed between the start of the instance and its deadline: test_setup.py
- the database is lost during the run, on a machine that is this one: test_lost_database.py
- a stop that cannot be confirmed; two rounds at the same moment: tests/integration/test_instance_power.py
- the sweep (held, healthy, and more orphans): tests/integration/test_sweep.py
- the unit and the deadline by themselves: tests/integration/test_unit_of_a_round.py
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from booted import Booted
from control_node import ControlNode
from ec2_machines import Machines, engine_or_skip, remove
from ec2_support import emulator, until
from project import Project
from shared_queue import SharedQueue, shared_queue
from slow_worker import machines_with_dependencies, slow_project

WORKER = "i-0000000000000a001"
KEYS = 12


class Drill:
    """The machine, the queue, and the control nodes that work on them."""

    def __init__(self, project: Project, home: Path, cloud: Machines, queue: SharedQueue) -> None:
        self.project = project
        self.home = home
        self.cloud = cloud
        self.queue = queue
        self.machine = Booted(cloud.ec2, cloud.folder, WORKER)
        self.nodes: list[ControlNode] = []
        self.earlier: set[int] = set()

    def play(self, playbook: str = "run.yml", *options: str, **variables: Any) -> ControlNode:
        """Run a playbook on the machine."""
        given = {
            "ec2_emulator_key_file": str(self.cloud.folder / "key"),
            "embedded_database_directory": str(self.queue.directory),
            "round_prepare_command": [],
            "workflow_image_runtime": "docker",
            "workflow_run_grace_seconds": 5,
            "workflow_run_collect_seconds": 10,
            **self.queue.settings(SLOW_STEPS=KEYS, SLOW_SECONDS=0.2),
        }
        self.earlier = self.queue.crews()
        command = self.project.command(self.home, given | variables, "rehearsal")
        command[command.index("run.yml")] = playbook
        self.nodes.append(ControlNode([*command, *options], self.project.folder))
        return self.nodes[-1]

    def in_hand(self, node: ControlNode) -> set[int]:
        """Wait until the round computes something; return the keys, of which none can come to its end."""
        until(lambda: self.queue.in_hand(self.earlier) or node.process.poll() is not None, 900)
        found = set(self.queue.in_hand(self.earlier))
        assert found, node.output[-3000:]
        return found

    def container(self) -> str:
        """Id of the round's container."""
        look = ("docker", "ps", "--quiet", "--filter", "label=datajoint-round")
        [found] = re.findall(r"^[0-9a-f]{12}$", self.machine.run(*look), re.MULTILINE)
        return str(found)

    def is_kept(self, steps: set[int]) -> bool:
        """Whether keys that were in hand wait for another try: some until their crew is found dead."""
        keys = self.queue.keys()
        return not self.queue.findings() and all(keys[step] in {"pending", "reserved"} for step in steps)

    def open_the_gate(self) -> None:
        """Let the keys in hand, and all others, come to their end."""
        self.machine.run("touch", "/var/lib/datajoint-round/rounds/current/output/go")

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
            f"--image={machines_with_dependencies()}",
            f"--key-file={home / 'ec2' / 'key'}",
            f"--ca-bundle={os.environ.get('PIP_CERT', '')}",
            "--grace=20",
        )
        with (
            emulator(home / "ec2", [{"id": WORKER}], *options) as ec2,
            shared_queue(home / "ec2") as queue,
        ):
            made = Drill(slow_project(project, home / "clone"), home, Machines(ec2, home / "ec2"), queue)
            yield made
            for node in made.nodes:
                if node.process.poll() is None:
                    node.kill()
    finally:
        remove(home / "ec2")


def fake_cloud_init(folder: Path) -> Path:
    """Stands for cloud-init, which the emulated machines lack; it keeps what it is asked."""
    file = folder / "cloud-init"
    file.write_text('#!/bin/sh\necho "$@" >>/var/lib/cloud-init-was-asked\n')
    file.chmod(0o755)
    return file


def test_a_container_that_is_killed(drill: Drill) -> None:
    node = drill.play()
    held = drill.in_hand(node)
    shown = drill.machine.run(
        "systemctl", "show", "datajoint-round", "--property=SuccessAction,FailureAction"
    )
    assert shown == "FailureAction=poweroff\nSuccessAction=poweroff\n"
    timer = drill.machine.run("systemctl", "show", "instance-deadline.timer", "--property=TimersCalendar")
    assert "OnCalendar" in timer
    drill.machine.put(fake_cloud_init(drill.home), "/usr/local/bin/cloud-init")
    second = drill.play()
    assert second.end() == 2, second.output[-3000:]
    assert re.search(r"i-\w+ is running: round \S+ of \S+ is on it since", " ".join(second.output.split()))
    drill.machine.run("docker", "kill", "--signal=KILL", drill.container())
    assert node.end() == 2, node.output[-3000:]
    assert drill.machine.state() == "stopped"
    assert "it was killed (exit status 137), most often because memory ran out" in node.output
    assert "take a larger instance or fewer processes" in node.output
    assert drill.is_kept(held), drill.queue.keys()


def test_a_container_that_hangs_past_its_limit(drill: Drill) -> None:
    node = drill.play(workflow_run_limit_hours=0.0125, workflow_run_grace_seconds=2)
    held = drill.in_hand(node)
    drill.machine.run("docker", "pause", drill.container())
    assert drill.machine.run("cat", "/var/lib/cloud-init-was-asked") == "status --wait\n"
    assert node.end() == 2, node.output[-3000:]
    assert drill.machine.state() == "stopped"
    assert "its time limit of 45 s was reached (workflow_run_limit_hours)" in node.output
    assert drill.is_kept(held), drill.queue.keys()


def test_a_database_that_is_lost_during_a_run(drill: Drill) -> None:
    more = drill.queue.settings(SLOW_STEPS=KEYS, SLOW_SECONDS=0.2, WORKFLOW_PATIENCE=2)
    node = drill.play(**more)
    held = drill.in_hand(node)
    with drill.queue.lost():
        assert node.end() == 2, node.output[-3000:]
    assert drill.machine.state() == "stopped"
    assert "the connection to the database was lost" in " ".join(node.output.split()), node.output[-3000:]
    assert drill.is_kept(held), drill.queue.keys()


def test_a_connection_that_is_lost_for_good(drill: Drill) -> None:
    """The control node gives up, stops the instance through the API, and says what happened."""
    node = drill.play(workflow_run_patience_seconds=30)
    held = drill.in_hand(node)
    drill.cloud.order({"machine": "no_network", "instance": WORKER})
    status = drill.play("playbooks/status.yml")
    assert status.end() == 2, status.output[-3000:]
    said = " ".join(status.output.split())
    assert re.search("why: .?rehearsal1 does not answer: ssh: connect to host", said), said[-3000:]
    assert node.end() == 2, node.output[-3000:]
    assert drill.machine.state() == "stopped"
    assert drill.machine.reason().startswith("Client.UserInitiatedShutdown")
    assert "the connection to rehearsal1 was lost for 30 s" in node.output
    assert "what the run had not done is due again" in " ".join(node.output.split())
    assert drill.is_kept(held), drill.queue.keys()


def test_a_round_whose_machine_is_taken_leaves_it_to_the_other(drill: Drill) -> None:
    """Then force_stop: the other puts back what it works on, its results come home, it is stopped."""
    first = drill.play(workflow_run_patience_seconds=3)
    drill.in_hand(first)
    node = drill.play("run.yml", "--extra-vars", "instance_power_force=true")
    assert first.end() == 2, first.output[-3000:]
    ways = "was taken from this round, and is left to|the machine was being switched off"
    assert re.search(ways, " ".join(first.output.split())), first.output[-3000:]
    held = drill.in_hand(node)
    assert drill.machine.state() == "running"
    stop = drill.play("playbooks/force_stop.yml")
    assert stop.end() == 0, stop.output[-3000:]
    assert node.end() == 2, node.output[-3000:]
    assert drill.machine.state() == "stopped"
    assert "of rehearsal1 is stopped" in stop.output
    assert "it was asked to stop (force_stop)" in node.output + stop.output
    assert drill.summary()["verdict"] == "stopped"
    assert drill.queue.untried(held), drill.queue.keys()
    assert drill.is_kept(held), drill.queue.findings()


def test_a_control_node_that_is_killed_while_it_follows(drill: Drill) -> None:
    """The run goes on alone, computes all that is due, and its machine switches itself off."""
    node = drill.play()
    drill.in_hand(node)
    node.says("rehearsal1 | ")
    node.kill()
    assert drill.machine.state() == "running"
    status = drill.play("playbooks/status.yml", "--limit", "rehearsal1")
    assert status.end() == 0, status.output[-3000:]
    assert "rehearsal1 (i-0000000000000a001): " in status.output
    drill.open_the_gate()
    drill.machine.off(300)
    assert drill.machine.reason().startswith("Client.InstanceInitiatedShutdown")
    assert drill.queue.unfinished() == [], "every key is done, once, whoever had it in hand before"
    assert drill.queue.done_by() == {"rehearsal1": KEYS}


def test_a_round_that_is_not_followed_can_be_followed_later(drill: Drill) -> None:
    """Launched and left alone, then followed from a second control node to its end and its results."""
    node = drill.play("run.yml", "-e", "follow=false", workflow_run_collect_seconds=120)
    assert node.end() == 0, node.output[-3000:]
    assert "it runs on alone, and its machine goes off when it has ended" in " ".join(node.output.split())
    assert drill.machine.state() == "running"
    logs = drill.play("playbooks/logs.yml")
    assert logs.end() == 0, logs.output[-3000:]
    assert "rehearsal1 | " in logs.output
    assert drill.machine.state() == "stopped"
    assert drill.summary()["verdict"] == "succeeded"
    assert drill.summary()["message"] == "nothing was due"
    assert drill.queue.unfinished() == []


def test_some_keys_fail(drill: Drill) -> None:
    """The others are done; the verdict says which one failed, and why."""
    more = drill.queue.settings(SLOW_STEPS=KEYS + 3, SLOW_FAIL=KEYS, SLOW_GATE="")
    node = drill.play(**more)
    assert node.end() == 2, node.output[-3000:]
    assert drill.machine.state() == "stopped"
    said = " ".join(node.output.split())
    assert "rehearsal1: failed" in said
    assert re.search(rf"failed: slow_pipeline.Slow .*step.*{KEYS}.*a step too far", said), said[-3000:]
    assert drill.queue.unfinished() == [f"key {KEYS} failed", f"key {KEYS}: error"]


def test_a_sweep_stops_an_orphan(drill: Drill) -> None:
    """On since its deadline has passed, with nobody who looks after it."""
    drill.machine.on()
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    tags = [{"Key": name, "Value": now} for name in ("round_started", "round_deadline")]
    drill.machine.api.create_tags(Resources=[WORKER], Tags=tags)
    sweep = drill.play("playbooks/sweep.yml", instance_power_sweep_pause_seconds=1)
    assert sweep.end() == 0, sweep.output[-3000:]
    assert re.search(rf"stopped:\s+{WORKER}", sweep.output)
    assert drill.machine.state() == "stopped"
    assert drill.machine.reason().startswith("Client.UserInitiatedShutdown")
