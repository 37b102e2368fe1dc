"""The button setup on a machine that really boots, over SSH: cancelled, done, and looked at.

What setup does to a bare machine is in tests/round/test_setup.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from booted import Booted
from ec2_machines import engine_or_skip, machine_image, machines, remove
from jobs import Event, Job, annotations
from pressed import CPU, Lab, fork_of

pytestmark = pytest.mark.timeout(1800)
OWN = {"worker_setup_minimum_free_gb": 0.1, "instance_power_poll_seconds": 0.5}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab with the shipped inventory, but for an id."""
    engine_or_skip()
    home = tmp_path_factory.mktemp("setup")
    try:
        with machines(home / "ec2", [{"id": CPU}], machine_image()) as cloud:
            key = (cloud.folder / "key").read_text()
            secrets = {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "secret of AWS", "SSH_KEY": key}
            yield Lab(home, fork_of(home, OWN), cloud.ec2, cloud.ec2.meta.endpoint_url, secrets)
    finally:
        remove(home / "ec2")


def press(fleet: Lab, *events: Event, **inputs: object) -> Job:
    """Press the button."""
    return fleet.runner(events=list(events)).run("setup.yaml", workers="cpu1", **inputs)["setup cpu1"]


def test_a_press_that_is_cancelled_leaves_nothing_on(fleet: Lab) -> None:
    job = press(fleet, Event("Set up", "TASK [worker_setup : "))
    assert job.status == "cancelled", job.log
    assert "❌ setup was cancelled" in job.summary
    assert "cpu1: it was on and nothing ran on it; it is stopped now" in job.log
    assert "it is stopped now" in job.summary
    assert fleet.state() == "stopped"


def test_a_press_sets_the_machine_up(fleet: Lab) -> None:
    """A dry run then looks at it, by a host key that it learns for the purpose, and leaves it on."""
    job = press(fleet)
    assert job.status == "success", job.log
    assert f"✅ Set up\n\n```text\ncpu1 ({CPU}): set up" in job.summary
    assert annotations(job) == []
    assert fleet.state() == "stopped"

    machine = Booted(fleet.ec2, fleet.folder / "ec2", CPU)
    machine.on()
    assert machine.run("systemctl", "is-active", "instance-deadline.timer") == "active\n"
    job = press(fleet, join=True, dry_run=True)
    assert job.status == "success", job.log
    assert f"✅ Looked, and changed nothing\n\n```text\ncpu1 ({CPU}): looked at" in job.summary
    assert "\nchanged: [cpu1]" not in job.step("Set up").output
    assert machine.state() == "running"
