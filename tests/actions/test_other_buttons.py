"""status, force_stop, sweep and setup, their steps run for real on a fresh clone and an emulated fleet."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from ec2_support import started, until
from jobs import annotations
from pressed import CPU, MEMORY, OWN, Lab

pytestmark = pytest.mark.timeout(1800)


def test_status_says_how_every_worker_is(lab: Lab) -> None:
    jobs = lab.runner().run("status.yaml")
    assert jobs["status"].status == "success", jobs["status"].log
    page = jobs["status"].summary
    assert "✅ How the workers are" in page
    for name, instance in (("cpu1", CPU), ("memory1", MEMORY), ("main", "***")):
        assert f"{name} ({instance}): stopped" in page
    assert OWN not in jobs["status"].log, "what is a secret is masked"


@pytest.mark.parametrize("button", ["status", "force_stop", "setup"])
def test_the_list_counts_for_every_button(lab: Lab, button: str) -> None:
    before = len(lab.requests())
    jobs = lab.runner(actor="mallory").run(f"{button}.yaml", workers="cpu1")
    assert set(jobs) == {"request"}
    assert "@mallory may not start this yet" in annotations(jobs["request"])[0]
    assert len(lab.requests()) == before


def test_force_stop_that_aws_refuses_says_so(lab: Lab) -> None:
    """What it does to a round is in test_start_process.py."""
    started(lab.ec2, MEMORY)
    lab.faults({"action": "StopInstances", "code": "UnauthorizedOperation", "message": "You may not."})
    refused = lab.runner().run("force_stop.yaml", workers="memory1")["force_stop memory1"]
    assert (refused.status, lab.state(MEMORY)) == ("failure", "running")
    assert "these credentials may not do that" in annotations(refused)[0]
    assert "IT MAY STILL BE RUNNING" in annotations(refused)[0]
    assert "❌ force_stop failed" in refused.summary
    assert "tell whoever looks after the secrets" in refused.summary
    lab.ec2.stop_instances(InstanceIds=[MEMORY])
    until(lambda: lab.state(MEMORY) == "stopped")


def test_the_sweep_stops_what_is_past_its_deadline(lab: Lab) -> None:
    """By itself, for nobody; without credentials it says that it does nothing, and is green."""
    started(lab.ec2, CPU)
    deadline = datetime.now(UTC) + timedelta(seconds=1)
    said = deadline.isoformat(timespec="seconds")
    tags = [{"Key": "round", "Value": "old"}, {"Key": "round_deadline", "Value": said}]
    lab.ec2.create_tags(Resources=[CPU], Tags=tags)
    runner = lab.runner(event="schedule")
    runner.secrets = {}
    job = runner.run("sweep.yaml")["sweep"]
    assert (job.status, lab.state(CPU)) == ("success", "running")
    assert annotations(job, "notice") == [
        "neither the variable AWS_ROLE_ARN nor the secret AWS_ACCESS_KEY_ID is set"
    ]
    until(lambda: datetime.now(UTC) > deadline)
    job = lab.runner(event="schedule").run("sweep.yaml")["sweep"]
    assert (job.status, lab.state(CPU)) == ("success", "stopped"), job.log
    assert "✅ Sweep done" in job.summary
    assert f"```text\nstopped: {CPU}\n```" in job.summary


def test_setup_looks_before_it_starts_anything(lab: Lab) -> None:
    before = len(lab.requests())
    job = lab.runner().run("setup.yaml", workers="cpu1", dry_run=True)["setup cpu1"]
    assert job.status == "success", job.log
    assert job.group == "worker-cpu1", "not while a round is on it"
    assert "StartInstances" not in lab.requests()[before:]
    assert "✅ Looked, and changed nothing" in job.summary
    assert f"cpu1 ({CPU}): it is off, and a dry run looks at machines that are on" in job.summary
