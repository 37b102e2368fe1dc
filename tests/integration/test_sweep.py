"""The sweep against the emulated EC2: what it stops, what it leaves alone, what it says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from clocks import wrong_clock
from ec2_support import REPOSITORY, describe, emulator, started, state, until
from listening_api import listening_api

sys.path.insert(0, str(REPOSITORY / "roles" / "instance_power" / "filter_plugins"))
from instance_power import instance_power_round_on, judge

NAMES = ("orphan", "held", "expired_hold", "healthy", "moved", "foreign", "stuck", "worker", "created")
IDS = {name: f"i-{number:08x}" for number, name in enumerate(NAMES, start=0xB0)}
FAR = "i-000000c0"
NOW = datetime(2026, 11, 22, 18, 0, tzinfo=UTC)


def at(hours: float, start: datetime = NOW) -> str:
    return (start + timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.mark.parametrize(
    ("launched", "tags", "verdict", "words"),
    [
        (-3, {"round_deadline": at(-1)}, "overdue", "deadline 2026-11-22T17:00:00Z"),
        (-3, {"round_deadline": at(1)}, "healthy", "deadline 2026-11-22T19:00:00Z"),
        (-3, {"round_deadline": at(-5)}, "healthy", "without a deadline of its own"),
        (-25, {"round_deadline": at(-30)}, "overdue", "which allows 24 h"),
        (-25, {"round_started": at(-30), "round_deadline": at(1)}, "overdue", "which allows 24 h"),
        (
            -25,
            {"round_started": at(-25), "round_deadline": at(1)},
            "healthy",
            "deadline 2026-11-22T19:00:00Z",
        ),
        (-25, {}, "overdue", "without a deadline of its own"),
        (-25, {"round_deadline": "tomorrow"}, "overdue", "without a deadline of its own"),
        (
            -3,
            {"round_deadline": at(-1), "round_hold_until": at(2)},
            "held",
            "held until 2026-11-22T20:00:00Z",
        ),
        (-3, {"round_deadline": at(-1), "round_hold_until": at(-0.5)}, "overdue", "its hold ended"),
        (-3, {"round_deadline": at(-1), "round_hold_until": "for ever"}, "overdue", "is no moment: give"),
        (-3, {"round_deadline": at(1), "round_hold_until": at(2)}, "healthy", "held until"),
    ],
)
def test_judgement(launched: float, tags: dict[str, str], verdict: str, words: str) -> None:
    """A deadline counts only for the start it was set at; a hold counts only until it ends."""
    instance = {"instance_id": "i-1", "launch_time": NOW + timedelta(hours=launched), "tags": tags}
    found = judge(instance, NOW, 24)
    assert (found["verdict"], words in found["why"]) == (verdict, True), found


@pytest.mark.parametrize(
    ("tags", "name"),
    [
        ({"round": "r1", "round_started": at(-3)}, "r1"),
        ({"round": "r1"}, "r1"),
        ({"round": "r1", "round_started": at(-4)}, ""),
        ({"round": "r1", "round_started": "20261122T140000Z"}, ""),
        ({}, ""),
    ],
)
def test_a_round_is_on_an_instance_if_its_tags_are_of_this_start(tags: dict[str, str], name: str) -> None:
    assert instance_power_round_on({"launch_time": NOW + timedelta(hours=-3), "tags": tags}) == name


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Sweep over one instance of each kind, in two regions with an API each.

    One gets another deadline between the two looks of the first time. The clock of the computer is two hours
    fast the first time, and two hours slow the second.
    """
    folder = tmp_path_factory.mktemp("sweep")
    declared = [{"id": id_, "name": name} for name, id_ in IDS.items()]
    far = [{"id": FAR, "tags": {"round": "20261122T180000Z-0123456"}}]
    with emulator(folder / "ec2", declared) as ec2, emulator(folder / "far", far) as other:
        started(other, FAR)
        for id_ in IDS.values():
            started(ec2, id_)
        for name, id_ in IDS.items():
            tags = {"round": "20261122T180000Z-0123456", "round_owner": "anna"}
            tags = {} if name in ("foreign", "worker", "created") else tags
            tags |= {
                "held": {"round_hold_until": at(1, datetime.now(UTC))},
                "expired_hold": {"round_hold_until": at(-1, datetime.now(UTC))},
                "created": {"round_deadline": at(-1, datetime.now(UTC))},
                "healthy": {"round_deadline": at(1, datetime.now(UTC))},
            }.get(name, {})
            tag(ec2, id_, tags or {"Name": name})
        (folder / "ec2" / "faults.json").write_text(
            '[{"action": "StopInstances", "code": "UnauthorizedOperation", "message": "as it is worded"}]'
        )

        variables = {
            "ansible_python_interpreter": sys.executable,
            "instance_power_endpoint_url": ec2.meta.endpoint_url,
            "instance_power_region": "eu-west-1",
            "instance_power_access_key": "any",
            "instance_power_secret_key": "any",
            "instance_power_poll_seconds": 0.1,
            "instance_power_sweep_hours": 0.0001,
            "instance_power_sweep_pause_seconds": 3,
        }
        elsewhere = {
            "instance_power_region": "eu-north-1",
            "instance_power_endpoint_url": other.meta.endpoint_url,
        }
        workers = {
            "stopped": {"instance_power_instance_id": "i-0000dead"},
            "worker": {"instance_power_instance_id": IDS["worker"]},
            "far": {"instance_power_instance_id": FAR, **elsewhere},
        }
        hosts = {"vars": variables, "children": {"workers": {"hosts": workers}}}
        (folder / "hosts.yml").write_text(json.dumps({"all": hosts}))
        dry = sweep(folder, {}, lambda: None, "--check")
        untouched = {state(ec2, id_) for id_ in IDS.values()} | {state(other, FAR)}
        first = sweep(
            folder,
            wrong_clock(folder, 2),
            lambda: tag(ec2, IDS["moved"], {"round_deadline": at(1, datetime.now(UTC))}),
        )
        states = {name: state(ec2, id_) for name, id_ in IDS.items()} | {"far": state(other, FAR)}
        second = sweep(folder, wrong_clock(folder, -2), lambda: None)
        until(lambda: state(ec2, IDS["orphan"]) == "stopped")
        reason = describe(ec2, IDS["orphan"])["StateReason"]["Message"]
        return {
            "dry": dry,
            "untouched": untouched,
            "first": first,
            "states": states,
            "second": second,
            "reason": reason,
        }


def sweep(folder: Path, clock: dict[str, str], between: Callable[[], None], *options: str) -> tuple[int, str]:
    """Run the playbook; do something between its two looks."""
    said = ""
    with subprocess.Popen(
        [
            Path(sys.executable).with_name("ansible-playbook"),
            "-i",
            folder / "hosts.yml",
            "playbooks/sweep.yml",
            *options,
        ],
        cwd=REPOSITORY,
        env=os.environ | {"ANSIBLE_NOCOLOR": "1", "PYTHONUNBUFFERED": "1"} | clock,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as run:
        for line in run.stdout or ():
            said += line
            if "Let a moment pass" in line:
                between()
    return run.returncode, said


def tag(ec2: Any, instance: str, tags: dict[str, str]) -> None:
    given = [{"Key": key, "Value": value} for key, value in tags.items()]
    ec2.create_tags(Resources=[instance], Tags=given)


def test_a_dry_run_says_what_it_would_stop(swept: dict[str, Any]) -> None:
    status, said = swept["dry"]
    assert status == 0, said
    assert swept["untouched"] == {"running"}
    [here, there] = re.findall(r"it would stop:\s+(.*)", said)
    assert {IDS["orphan"], IDS["worker"]} <= set(f"{here}, {there}".split(", "))
    assert "stopped: " not in said


def test_what_is_overdue_is_stopped_and_nothing_else(swept: dict[str, Any]) -> None:
    """One refusal of the API (the first stop) keeps one running, and the others are stopped nevertheless."""
    stopped = {name for name, found in swept["states"].items() if found == "stopped"}
    overdue = {"orphan", "expired_hold", "stuck", "worker", "created"}
    assert len(stopped & overdue) == len(overdue) - 1
    assert stopped <= overdue | {"far"}


def test_every_region_is_swept_once(swept: dict[str, Any]) -> None:
    """With the instances of all its workers, also those that no round has ever claimed."""
    assert swept["states"]["far"] == "stopped"
    said = " ".join(swept["first"][1].split())
    assert len(re.findall(r"- i-\w+ overdue ", said)) == 6 + 1, said
    assert re.search(rf"{IDS['worker']} overdue runs since \S+ without [^-]*, of no round", said)


def test_one_that_cannot_be_stopped_is_named_and_the_next_sweep_stops_it(swept: dict[str, Any]) -> None:
    status, said = swept["first"]
    assert status != 0
    assert "IT MAY STILL BE RUNNING" in said
    assert "allow ec2:DescribeInstances" in said
    status, said = swept["second"]
    assert status == 0, said
    assert re.search(r"stopped: i-000000b\d\b", said)
    assert swept["reason"].startswith("Client.UserInitiatedShutdown")


def test_it_says_what_it_thinks_of_each(swept: dict[str, Any]) -> None:
    _, said = swept["first"]
    verdicts = dict(re.findall(r"- (i-\w+) (overdue|held|healthy) ", said))
    assert verdicts == {
        IDS["orphan"]: "overdue",
        IDS["held"]: "held",
        IDS["expired_hold"]: "overdue",
        IDS["healthy"]: "healthy",
        IDS["moved"]: "overdue",
        IDS["stuck"]: "overdue",
        IDS["worker"]: "overdue",
        IDS["created"]: "overdue",
        FAR: "overdue",
    }
    assert "round 20261122T180000Z-0123456 of anna" in said


def test_without_workers_the_region_of_the_inventory_is_swept() -> None:
    """As the inventory for AWS is shipped, with the credentials of the environment."""
    own = {"AWS_ACCESS_KEY_ID": "anna", "AWS_SECRET_ACCESS_KEY": "x", "AWS_MAX_ATTEMPTS": "1"}
    with listening_api() as (url, asked):
        done = subprocess.run(
            [
                Path(sys.executable).with_name("ansible-playbook"),
                *("-i", "inventory/aws", "playbooks/sweep.yml"),
                *("-e", f"instance_power_endpoint_url={url}"),
            ],
            cwd=REPOSITORY,
            env=os.environ | own,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 2, done.stdout
    assert re.search(r"Credential=anna/\d+/us-east-1/ec2/", asked[0]["Authorization"])
