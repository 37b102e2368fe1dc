"""The stop drill of a fleet: in one round every worker meets another misfortune.

All but one fail; none keeps another from its work (one answers only after others have begun theirs), and each
is stopped in the end. Those that come to compute share one queue, and lose nothing. Proven here: populate
succeeds, though SSH drops and returns and the instance hangs in stopping; clone fails, and the stop after it;
build fails; SSH drops for good during one; the disk is full; the Docker daemon dies; the database is down at
the start; credentials expire while the run is followed; capacity never comes; the deadline passes during a
build, with a control node and, killed, without one; a control node's clock is two hours slow.
`test_stop_drill.py` names the rest.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from booted import Booted
from clocks import wrong_clock
from control_node import ControlNode
from ec2_machines import Machines, engine_or_skip, remove
from ec2_support import describe, emulator, until
from project import Project
from shared_queue import SharedQueue, shared_queue
from slow_worker import machines_with_dependencies, slow_project

HOURS = {
    "workflow_run_limit_hours": 0.001,
    "workflow_run_grace_seconds": 1,
    "workflow_run_collect_seconds": 1,
}

#: What is peculiar to each worker.
WORKERS: dict[str, dict[str, Any]] = {
    "good": {},
    "clone": {"workflow_source_ship": False},
    "build": {"workflow_source_version": "broken", "round_connect_timeout": 900},
    "late": {"workflow_source_version": "endless", "instance_deadline_hours": 0.025, **HOURS},
    "cut": {"workflow_source_version": "endless"},
    "full": {},
    "nowhere": {"workflow_settings_port": 1},
    "engine": {},
    "expired": {},
    "never": {"instance_power_capacity_attempts": 2, "instance_power_capacity_backoff_seconds": 0.1},
    "refused": {"workflow_source_ship": False},
}
IDS = {name: f"i-0000000000000f{number:03x}" for number, name in enumerate(WORKERS)}

#: Workers that get as far as the queue, and how many keys wait there for them.
COMPUTING = {"good", "engine", "expired"}
KEYS = 12
FAULTS = [
    {"action": "StartInstances", "access_key": "never", "code": "InsufficientInstanceCapacity", "times": 99},
    {"action": "StopInstances", "access_key": "refused", "code": "UnauthorizedOperation", "times": 99},
    {"machine": "full_disk", "instance": IDS["full"]},
    {"machine": "no_ssh", "instance": IDS["build"]},
    {"machine": "hang_in_stopping", "instance": IDS["good"], "seconds": 5},
]
LASTING = FAULTS[1], FAULTS[-1]
ROUNDS = "/var/lib/datajoint-round/rounds/current"


class Fleet:
    """The machines, and the control nodes that work on them."""

    def __init__(self, project: Project, home: Path, cloud: Machines, queue: SharedQueue) -> None:
        self.project, self.home, self.cloud, self.queue = project, home, cloud, queue
        self.machines = {name: Booted(cloud.ec2, cloud.folder, id_) for name, id_ in IDS.items()}
        self.nodes: list[ControlNode] = []
        self.inventory = home / "inventory"
        self.inventory.mkdir()
        (self.inventory / "group_vars").symlink_to(project.folder / "inventory" / "rehearsal" / "group_vars")
        hosts = {
            name: {"instance_power_instance_id": IDS[name], "instance_power_access_key": name, **own}
            for name, own in WORKERS.items()
        }
        listed = {
            "hosts": {
                "localhost": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
            },
            "children": {
                "workers": {"children": {"cpu_optimized": {}, "memory_optimized": {}}},
                "cpu_optimized": {"hosts": {"good": hosts.pop("good")}},
                "memory_optimized": {"hosts": hosts},
            },
        }
        (self.inventory / "hosts.yml").write_text(json.dumps({"all": listed}))

    def round(
        self, limit: str = "all", environment: dict[str, str] | None = None, **more: Any
    ) -> ControlNode:
        """Begin a round on some of them."""
        given = {
            "sandbox_project": str(self.project.folder),
            "sandbox_home": str(self.home),
            "sandbox_artifacts": str(self.home / "artifacts"),
            "ec2_emulator_key_file": str(self.cloud.folder / "key"),
            "embedded_database_directory": str(self.queue.directory),
            "round_prepare_command": [],
            **self.queue.settings(SLOW_STEPS=KEYS, SLOW_SECONDS=0.3),
            **more,
        }
        program = str(Path(sys.executable).with_name("ansible-playbook"))
        words = [
            program,
            "-i",
            str(self.inventory),
            "run.yml",
            "--limit",
            limit,
            "-e",
            json.dumps(given),
        ]
        self.nodes.append(ControlNode(words, self.project.folder, **(environment or {})))
        return self.nodes[-1]

    def in_hand(self, node: ControlNode, *names: str) -> set[int]:
        """Wait until each of some machines computes something; return the keys."""
        until(lambda: self._held_by() >= set(names) or node.process.poll() is not None, 900)
        found = self.queue.in_hand()
        assert set(found.values()) == set(names), node.output[-3000:]
        return set(found)

    def _held_by(self) -> set[str]:
        return set(self.queue.in_hand().values())

    def open_the_gate(self, name: str) -> None:
        """Let the keys that a worker has in hand, and all others, come to their end."""
        self.machines[name].run("touch", f"{ROUNDS}/output/go")

    def states(self) -> set[str]:
        """All states of the instances, after those that stop have stopped."""
        for machine in self.machines.values():
            until(lambda machine=machine: machine.state() in ("stopped", "running"))
        return {machine.state() for machine in self.machines.values()}


@pytest.fixture(scope="module")
def fleet(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    engine_or_skip()
    home = tmp_path_factory.mktemp("fleet")
    try:
        options = (
            "--backend=container",
            f"--image={machines_with_dependencies()}",
            f"--key-file={home / 'ec2' / 'key'}",
            f"--ca-bundle={os.environ.get('PIP_CERT', '')}",
            "--grace=20",
        )
        with (
            emulator(home / "ec2", [{"id": id_} for id_ in IDS.values()], *options) as ec2,
            shared_queue(home / "ec2") as queue,
        ):
            made = Fleet(slow_project(project, home / "clone"), home, Machines(ec2, home / "ec2"), queue)
            yield made
            for node in made.nodes:
                if node.process.poll() is None:
                    node.kill()
    finally:
        remove(home / "ec2")


def builds(machine: Booted) -> bool:
    """Whether the build that never ends is under way."""
    said = machine.run("pgrep", "-f", "sleep 600", check=False)
    return re.fullmatch(r"(\d+\n)+", said) is not None


@pytest.fixture(scope="module")
def verdicts(fleet: Fleet) -> dict[str, str]:
    """One round of the fleet; what its verdict says of each worker, on one line each."""
    fleet.cloud.order(*FAULTS)
    node = fleet.round()
    fleet.in_hand(node, *COMPUTING)
    silent = fleet.machines["build"].run("rm", "/etc/ssh/sshd_not_to_be_run")
    assert silent == "", "it has not answered so far"
    fleet.machines["build"].run("systemctl", "start", "ssh.service")
    until(lambda: builds(fleet.machines["cut"]) or node.process.poll() is not None, 600)
    fleet.cloud.order(
        *LASTING,
        {"machine": "no_network", "instance": IDS["cut"]},
        {"machine": "no_network", "instance": IDS["good"], "seconds": 4},
        {"access_key": "expired", "code": "RequestExpired", "times": 999},
    )
    fleet.machines["engine"].run("systemctl", "mask", "--runtime", "docker.service", "docker.socket")
    fleet.machines["engine"].run("sh", "-c", "kill -9 $(pidof dockerd)")
    node.says("good | (connection lost")
    node.says("good | (connected again)")
    fleet.machines["engine"].off(300)
    for name in ("good", "expired"):
        fleet.open_the_gate(name)
    status = node.end()
    (fleet.home / "output").write_text(node.output)
    verdict = re.sub(r"\s+", " ", node.output.rpartition("TASK [Show the verdict]")[2])
    left = fleet.machines["refused"].state()
    ordered = json.loads((fleet.cloud.folder / "faults.json").read_text())
    [hung] = [fault["times"] == 0 for fault in ordered if fault.get("machine") == "hang_in_stopping"]
    after = fleet.machines["good"].state() if hung else "it did not hang"
    fleet.machines["refused"].api.stop_instances(InstanceIds=[IDS["refused"]])
    found = {
        "status": str(status),
        "left": left,
        "good after": after,
        "end": verdict.partition("TASK [")[2],
        "output": node.output,
    }
    places = sorted((verdict.find(f"{name}: "), name) for name in WORKERS)
    assert places[0][0] >= 0, node.output[-6000:]
    for (place, name), (after, _) in zip(places, [*places[1:], (None, "")], strict=True):
        found[name] = verdict[place:after]
    return found


def test_every_instance_is_stopped(fleet: Fleet, verdicts: dict[str, str]) -> None:
    """But for one whose stop was refused, and whose verdict says so besides why its round failed."""
    assert verdicts["good after"] == "stopped", "the round waits while an instance hangs in stopping"
    assert verdicts["left"] == "running"
    assert "could not be fetched" in verdicts["refused"]
    assert "these credentials may not do that" in verdicts["refused"]
    assert "IT MAY STILL BE RUNNING AND COST MONEY" in verdicts["refused"]
    assert fleet.states() == {"stopped"}, verdicts["output"][-6000:]


def test_one_workers_failure_neither_stops_nor_hides_another(verdicts: dict[str, str]) -> None:
    """A verdict for each, and for the round, which names who failed."""
    assert verdicts["status"] == "2"
    assert verdicts["good"].startswith("good: succeeded"), verdicts["output"][-6000:]
    assert "slow_pipeline.Slow" in verdicts["good"]
    named = re.search(r"The round failed on ([^:]+):", verdicts["end"])
    assert named, verdicts["end"]
    assert set(named[1].split(", ")) == set(WORKERS) - {"good"}


def test_nothing_is_lost_and_the_workers_share_one_queue(fleet: Fleet, verdicts: dict[str, str]) -> None:
    """Every key is done once, that of the machine whose engine died by those who have noticed."""
    assert fleet.queue.unfinished() == [], verdicts["output"][-6000:]
    done = fleet.queue.done_by()
    assert set(done) == {"good", "expired"}
    assert sum(done.values()) == KEYS


@pytest.mark.parametrize(
    ("worker", "words"),
    [
        ("clone", r"could not be fetched at .*git repository.*Check the repository, the version and"),
        ("build", r"source/Dockerfile: step .*exit 42\) failed: exit status 42.*mend what"),
        ("late", r"went off in the middle .*Instance initiated shutdown.*instance_deadline_hours"),
        (
            "cut",
            r"The connection to cut is lost .*: look at the network between here and there, and run again",
        ),
        ("nowhere", r"cannot be reached"),
        ("full", r"No space left on device.*free space there, or enlarge it"),
        ("engine", r"the Docker engine does not answer any more: see journalctl -u docker"),
        ("expired", r"the AWS credentials have expired; sign in again.*IT MAY STILL BE RUNNING"),
        ("never", r"AWS has no capacity for this instance type in its zone now; run again later"),
    ],
)
def test_each_verdict_names_cause_and_remedy(verdicts: dict[str, str], worker: str, words: str) -> None:
    assert re.search(words, verdicts[worker]), f"{verdicts[worker]}\n{verdicts['output'][-6000:]}"


def test_a_control_node_that_is_killed_during_a_build(fleet: Fleet, verdicts: dict[str, str]) -> None:
    """Nobody is left to stop the machine: its own deadline does, in the middle of the build."""
    assert verdicts
    fleet.cloud.order()
    machine = fleet.machines["late"]
    node = fleet.round("late")
    until(lambda: builds(machine) or node.process.poll() is not None, 600)
    assert node.process.poll() is None, node.output[-3000:]
    node.kill()
    assert machine.state() == "running"
    machine.off(300)
    assert machine.reason().startswith("Client.InstanceInitiatedShutdown")


def test_a_control_node_whose_clock_is_two_hours_slow(
    fleet: Fleet, verdicts: dict[str, str], tmp_path: Path
) -> None:
    """A round on a group of one: the deadline of the machine is the machine's own, a sweep's is the API's."""
    assert verdicts
    fleet.cloud.order()
    began = time.time()
    node = fleet.round(
        "cpu_optimized",
        wrong_clock(tmp_path, -2),
        instance_deadline_hours=1,
        **HOURS | {"workflow_run_limit_hours": 0.5},
        **fleet.queue.settings(SLOW_STEPS=KEYS + 2),
    )
    fleet.in_hand(node, "good")
    assert {name for name in IDS if fleet.machines[name].state() != "stopped"} == {"good"}
    machine = fleet.machines["good"]
    shown = machine.run("cat", "/etc/systemd/system/instance-deadline.timer.d/round.conf")
    [calendar] = re.findall(r"OnCalendar=(\S+ \S+) UTC", shown)
    deadline = datetime.fromisoformat(calendar).replace(tzinfo=UTC).timestamp()
    assert began < deadline - 3600 < time.time(), "an hour from now by the machine's clock"
    tags = {tag["Key"]: tag["Value"] for tag in describe(fleet.cloud.ec2, IDS["good"])["Tags"]}
    assert began + 3599 < datetime.fromisoformat(tags["round_deadline"]).timestamp() < deadline
    fleet.open_the_gate("good")
    assert node.end() == 0, node.output[-3000:]
    assert re.findall(r"(\w+): succeeded", node.output) == ["good"]
    assert machine.state() == "stopped"
    assert fleet.queue.unfinished() == []
    rounds = sorted(path.name for path in (fleet.home / "artifacts").iterdir())
    slow = datetime.strptime(rounds[0][:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    assert slow < began - 7000, "its clock was slow indeed"
