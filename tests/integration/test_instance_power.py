"""The role instance_power against the emulated EC2: one run of many hosts, each one a case."""

import json
import os
import re
import signal
import socket
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from clocks import wrong_clock
from ec2_support import describe, emulator, outcomes, play, process_group, refusal, started, state, until

ROUND = {
    "round": "20261122T180000Z-0123456",
    "round_owner": "anna",
    "commit": "",
}
FOREIGN = {
    "round": "20261121T120000Z-abcdef0",
    "round_owner": "otto",
    "round_started": f"{datetime.now(UTC) + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}",
}
EARLIER = FOREIGN | {"round_started": "2026-01-21T12:00:00Z"}
NAMES = (
    "plain",
    "destroyed",
    "used",
    "scarce",
    "barren",
    "forbidden",
    "handmade",
    "mute",
    "early",
    "checked",
    "stuck",
    "seized",
)
IDS = {name: f"i-{number:08x}" for number, name in enumerate(NAMES, start=0xA0)}
INSTANCES = [
    {"id": id_, "name": name, "tags": {"kind": "twin" if name in ("checked", "stuck") else name}}
    for name, id_ in IDS.items()
]
INSTANCES[NAMES.index("destroyed")]["shutdown_behavior"] = "terminate"


def fault(name: str, action: str, code: str, times: int = 1000) -> dict[str, object]:
    """Refuse requests with the access key of a host."""
    return {
        "access_key": name,
        "action": action,
        "code": code,
        "times": times,
        "message": f"as {code} is worded",
    }


FAULTS = [
    fault("expired", "DescribeInstances", "RequestExpired"),
    fault("late_clock", "DescribeInstances", "RequestExpired")
    | {"message": "Request has expired. Timestamp date is 2026-11-22T16:00:00Z. Current date is later."},
    fault("forbidden", "StartInstances", "UnauthorizedOperation"),
    fault("scarce", "StartInstances", "InsufficientInstanceCapacity", times=1),
    fault("barren", "StartInstances", "InsufficientInstanceCapacity"),
    fault("mute", "CreateTags", "UnauthorizedOperation"),
]


def step(state: str = "", **variables: object) -> dict[str, object]:
    """Apply the role in a playbook, by its entry point preflight unless a state is given."""
    role = {"name": "instance_power"} if state else {"name": "instance_power", "tasks_from": "preflight"}
    inputs = {"instance_power_state": state} if state else {}
    return {"ansible.builtin.include_role": role, "vars": inputs | variables}


def facts(label: str) -> dict[str, object]:
    names = ("address", "found_id", "claimed")
    told = ", ".join(f"'{name}': instance_power_{name} | default('unset')" for name in names)
    return {"name": label, "ansible.builtin.debug": {"msg": f"{{{{ {{ {told} }} }}}}"}}


def a_play(hosts: str, *tasks: dict[str, object]) -> dict[str, object]:
    return {"hosts": hosts, "gather_facts": False, "tasks": list(tasks)}


def hosts(silent_port: int) -> dict[str, dict[str, object]]:
    """Name the cases; those without an instance of their own share one."""
    by_id = {"instance_power_instance_id": IDS["plain"]}
    used = {"instance_power_instance_id": IDS["used"]}
    late = {"instance_power_round_tags": ROUND | {"round": "late"}}
    own = {
        name: {"instance_power_instance_id": id_, "instance_power_access_key": name}
        for name, id_ in IDS.items()
    }
    return own | {
        "plain": {"instance_power_tags": {"kind": "plain"}},
        "unknown": {"instance_power_instance_id": "i-0000000b"},
        "twins": {"instance_power_tags": {"kind": "twin"}},
        "taker": {"instance_power_instance_id": IDS["handmade"], "instance_power_join": True},
        "joiner": used | {"instance_power_join": True},
        "late": late | {"instance_power_instance_id": IDS["early"]},
        "rival": late | {"instance_power_instance_id": IDS["scarce"]},
        "seizer": late | {"instance_power_instance_id": IDS["seized"], "instance_power_force": True},
        "hasty": {"instance_power_instance_id": IDS["stuck"], "instance_power_accept_stopping": False},
        "broken": {"instance_power_instance_id": IDS["stuck"]},
        "gone": {"instance_power_instance_id": IDS["stuck"], "instance_power_claimed": False},
        "expired": by_id | {"instance_power_access_key": "expired"},
        "late_clock": by_id | {"instance_power_access_key": "late_clock"},
        "unreachable": by_id | {"instance_power_endpoint_url": f"http://127.0.0.1:{silent_port}"},
        "none": {},
    }


def stop_of_one_that_ran_a_moment_ago() -> dict[str, object]:
    """Stop an instance that EC2 shows as stopping by the time it is asked to stop it."""
    seen = {"state": {"name": "running"}, "instance_id": IDS["stuck"], "tags": {}}
    inputs = {
        "instance_power_state": "stopped",
        "instance_power_found_id": IDS["stuck"],
        "instance_power_stop_timeout": 0.4,
    }
    names = ("region", "endpoint_url", "access_key", "secret_key")
    return {
        "block": [
            {"ansible.builtin.set_fact": {"__instance_power_seen": {"instances": [seen]}}},
            {
                "ansible.builtin.include_role": {"name": "instance_power", "tasks_from": "stop"},
                "vars": inputs,
            },
        ],
        "delegate_to": "localhost",
        "become": False,
        "module_defaults": {
            "group/amazon.aws.aws": {name: f"{{{{ instance_power_{name} }}}}" for name in names}
            | {"profile": ""}
        },
        "vars": {
            "ansible_connection": "local",
            "ansible_python_interpreter": "{{ ansible_playbook_python }}",
        },
    }


COMMON = {
    "ansible_host": "192.0.2.1",
    "ansible_connection": "ssh",
    "ansible_become": True,
    "ansible_python_interpreter": "/nonexistent/python",
    "instance_power_region": "eu-west-1",
    "instance_power_access_key": "any",
    "instance_power_secret_key": "top-secret-key",
    "instance_power_round_tags": ROUND,
    # Numbers that are given as `-e name=value` arrive as strings.
    "instance_power_round_hours": "2.5",
    "instance_power_poll_seconds": "0.2",
    "instance_power_capacity_attempts": "2",
    "instance_power_capacity_backoff_seconds": "0.5",
}
PLAYS = [
    a_play("all:!stuck:!hasty:!broken:!gone:!checked:!seizer", step()),
    a_play("plain:scarce:barren:forbidden:joiner:taker:none", step("running"), facts("after start")),
    a_play("plain:taker", step("running"), facts("after second start")),
    # Rival comes too late for the instance of `scarce`. Early and late are in each other's way this moment.
    a_play(
        "rival:early:late:mute",
        {"block": [step("running"), facts("after start")], "rescue": [facts("after refusal")]},
    ),
    a_play("mute", step("stopped")),
    a_play("plain:taker:none", step("stopped"), facts("after stop")),
    a_play("plain", step("stopped")),
    a_play("seized", step("running"), facts("after start")),
    a_play("seizer", step(), step("running"), facts("after start")),
    a_play("seized", step("stopped"), facts("after loss")),
    # Where all hosts of a play fail, Ansible plays no other.
    a_play(
        "stuck",
        {"block": [step("stopped", instance_power_stop_timeout="0.4")], "rescue": [facts("after refusal")]},
    ),
    a_play("gone", {"block": [stop_of_one_that_ran_a_moment_ago()], "rescue": [facts("after refusal")]}),
    # What breaks within the role on its way to the stop must be as loud as what EC2 refuses.
    a_play(
        "broken",
        {
            "block": [step("stopped", __instance_power_rounds="{{ nothing_of_the_sort }}")],
            "rescue": [facts("after refusal")],
        },
    ),
    a_play("hasty", step()),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory):
    """Run all cases; yield the run's report and a client. No task may connect to a host."""
    folder = tmp_path_factory.mktemp("ec2")
    with ExitStack() as held:
        ec2 = held.enter_context(emulator(folder, INSTANCES, "--grace=600"))
        nobody = held.enter_context(socket.socket())
        nobody.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        for name in ("used", "handmade", "stuck"):
            started(ec2, IDS[name])
        stubborn = held.enter_context(process_group("trap '' TERM; while :; do sleep 0.1; done"))
        for name, tags in (("used", FOREIGN), ("handmade", EARLIER)):
            given = [{"Key": key, "Value": value} for key, value in tags.items()]
            ec2.create_tags(Resources=[IDS[name]], Tags=given)
        (folder / "machines" / IDS["stuck"] / "processes").write_text(f"{stubborn.pid}\n")
        (folder / "faults.json").write_text(json.dumps(FAULTS))

        inventory = {"all": {"hosts": hosts(nobody.getsockname()[1]), "vars": COMMON}}
        inventory["all"]["vars"] |= {"instance_power_endpoint_url": ec2.meta.endpoint_url}
        # Two hours slow, which must not matter. One attempt of botocore per call: the role's own attempts are
        # what is tried here. The rest may be in an operator's environment, and must not matter to an emulated
        # API with keys of its own.
        environment = wrong_clock(folder, -2) | {
            "AWS_MAX_ATTEMPTS": "1",
            "AWS_PROFILE": "of-somebody-else",
            "AWS_SESSION_TOKEN": "old",
            "HTTP_PROXY": "http://192.0.2.2:3128",
            "http_proxy": "http://192.0.2.2:3128",
        }
        report = play(folder, PLAYS, inventory, **environment)
        checked = [a_play("checked", step(), step("running"), facts("after start"), step("stopped"))]
        report["checked"] = play(folder, checked, inventory, "--check", **environment)
        yield report, ec2, stubborn


def told(report: dict, host: str, label: str) -> dict:
    return next(one["msg"] for one in outcomes(report, host) if one["task"] == label)


def tags_of(ec2: Any, name: str) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in describe(ec2, IDS[name])["Tags"]}


def changes(report: dict, host: str) -> list[str]:
    return [one["task"] for one in outcomes(report, host) if one.get("changed")]


def test_an_instance_that_tags_select_is_started_once_and_stopped_once(run):
    report, ec2, _ = run
    assert changes(report, "plain") == ["Ask EC2 to start the instance", "Ask EC2 to stop the instance"]
    up = {"address": "127.0.0.1", "found_id": IDS["plain"], "claimed": True}
    assert told(report, "plain", "after start") == up
    assert told(report, "plain", "after second start") == up
    assert told(report, "plain", "after stop") == {"address": "", "found_id": IDS["plain"], "claimed": False}
    assert state(ec2, IDS["plain"]) == "stopped"
    tags = tags_of(ec2, "plain")
    started, deadline = (
        datetime.fromisoformat(tags.pop(name)) for name in ("round_started", "round_deadline")
    )
    assert tags == ROUND | {"Name": "plain", "kind": "plain"}
    assert deadline - started == timedelta(hours=2.5)
    assert timedelta(0) <= datetime.now(UTC) - started < timedelta(hours=1), "by the API's clock"


def test_a_host_without_instance_is_left_alone(run):
    report, *_ = run
    nothing = {"address": "", "found_id": "", "claimed": False}
    assert told(report, "none", "after start") == told(report, "none", "after stop") == nothing
    done = [one["task"] for one in outcomes(report, "none") if not one.get("skipped")]
    assert done
    assert not [task for task in done if task.startswith(("Read", "Ask"))]


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("unknown", ["Unknown instance: none matches the instance id i-0000000b", "(host unknown)"]),
        ("twins", ["2 instances match the tags", f"{IDS['checked']}, {IDS['stuck']}", "Give one of them"]),
        (
            "destroyed",
            [
                f"{IDS['destroyed']} would be terminated",
                f"aws ec2 modify-instance-attribute --region eu-west-1 --instance-id {IDS['destroyed']} "
                "--instance-initiated-shutdown-behavior stop",
            ],
        ),
        (
            "used",
            [
                f"{IDS['used']} is running: round {FOREIGN['round']} of otto is on it",
                f"since {FOREIGN['round_started']}",
                "instance_power_join=true",
            ],
        ),
        (
            "handmade",
            [
                f"{IDS['handmade']} is running: it was started outside of a round.",
                "or make it this round's, which stops it in the end, with instance_power_join=true",
            ],
        ),
        ("expired", [f"{IDS['plain']} cannot be read", "credentials have expired; sign in again"]),
        ("late_clock", [f"{IDS['plain']} cannot be read", "this computer's clock is wrong, or"]),
        ("unreachable", ["the EC2 API cannot be reached; check the network", "Could not connect"]),
        ("forbidden", [f"{IDS['forbidden']} cannot be started", "may not do that", "ec2:StartInstances"]),
        ("barren", [f"{IDS['barren']} cannot be started (2 attempts)", "AWS has no capacity"]),
        ("rival", [f"{IDS['scarce']} is running: round {ROUND['round']} of anna is on it since"]),
        (
            "stuck",
            [
                f"{IDS['stuck']} is still stopping after 0.4 s",
                "IT MAY STILL BE RUNNING AND COST MONEY",
                "aws ec2 describe-instances --region eu-west-1 --endpoint-url http://127.0.0.1:",
                f"--instance-ids {IDS['stuck']}",
            ],
        ),
        ("gone", [f"{IDS['stuck']} is still stopping after 0.4 s"]),
        ("broken", ["IT MAY STILL BE RUNNING AND COST MONEY", IDS["stuck"], "nothing_of_the_sort"]),
        ("hasty", [f"{IDS['stuck']} is stopping: ", "Wait until it is stopped"]),
    ],
)
def test_a_refusal_is_one_line_that_names_the_instance_and_the_fix(run, host, words):
    report, *_ = run
    message = refusal(report, host)
    for part in words:
        assert part in message
    assert "\n" not in message
    assert "top-secret-key" not in json.dumps(report)


def test_a_refused_instance_is_not_changed(run):
    report, ec2, _ = run
    assert report["rc"] == 2
    for host in ("unknown", "twins", "destroyed", "used", "expired", "unreachable"):
        assert not changes(report, host), host
    assert state(ec2, IDS["destroyed"]) == "stopped"
    assert not describe(ec2, IDS["destroyed"]).get("StateReason")
    for name in ("barren", "forbidden"):
        assert state(ec2, IDS[name]) == "stopped"


def test_a_round_may_join_and_leaves_the_owners_tags(run):
    report, ec2, _ = run
    assert told(report, "joiner", "after start") == {
        "address": "127.0.0.1",
        "found_id": IDS["used"],
        "claimed": False,
    }
    assert not changes(report, "joiner")
    assert tags_of(ec2, "used")["round"] == FOREIGN["round"]


def test_one_that_was_started_by_hand_is_taken_and_stopped(run):
    """Its tags of an earlier round are no round that is on it."""
    report, ec2, _ = run
    up = {"address": "127.0.0.1", "found_id": IDS["handmade"], "claimed": True}
    assert told(report, "taker", "after start") == up
    assert told(report, "taker", "after second start") == up
    assert told(report, "taker", "after stop")["claimed"] is False
    assert state(ec2, IDS["handmade"]) == "stopped"
    tags = tags_of(ec2, "handmade")
    assert (tags["round"], tags["round_owner"]) == (ROUND["round"], "anna")
    assert tags["round_deadline"] > tags["round_started"] > EARLIER["round_started"]


def test_a_start_without_capacity_is_tried_again(run):
    report, ec2, _ = run
    assert told(report, "scarce", "after start")["address"] == "127.0.0.1"
    assert state(ec2, IDS["scarce"]) == "running"
    attempts = [one for one in outcomes(report, "scarce") if one["task"] == "Ask EC2 to start the instance"]
    assert ["InsufficientInstanceCapacity" in one.get("msg", "") for one in attempts] == [True, False]


def test_the_later_of_two_rounds_gives_way(run):
    report, ec2, _ = run
    assert told(report, "scarce", "after start")["claimed"] is True
    assert told(report, "rival", "after refusal")["claimed"] is False
    assert state(ec2, IDS["scarce"]) == "running"
    assert tags_of(ec2, "scarce")["round"] == ROUND["round"]


def test_a_round_whose_machine_was_taken_by_force_does_not_stop_it(run):
    report, ec2, _ = run
    assert told(report, "seized", "after start")["claimed"] is True
    assert changes(report, "seizer") == ["Ask EC2 to stop the instance", "Ask EC2 to start the instance"]
    assert told(report, "seizer", "after start")["claimed"] is True
    assert told(report, "seized", "after loss")["claimed"] is False
    assert changes(report, "seized") == ["Ask EC2 to start the instance"]
    assert state(ec2, IDS["seized"]) == "running"
    assert tags_of(ec2, "seized")["round"] == "late"


def test_of_two_rounds_at_the_same_moment_one_has_the_instance_and_its_tags(run):
    report, ec2, _ = run
    ends = {
        name: {one["task"]: one["msg"] for one in outcomes(report, name) if one["task"].startswith("after ")}
        for name in ("early", "late")
    }
    [winner] = [name for name, end in ends.items() if "after start" in end]
    [loser] = set(ends) - {winner}
    assert ends[winner]["after start"]["claimed"] is True
    assert ends[loser]["after refusal"]["claimed"] is False
    assert re.search("then somebody else started it|of anna is on it since", refusal(report, loser))
    assert state(ec2, IDS["early"]) == "running"
    assert tags_of(ec2, "early")["round"] == (ROUND["round"] if winner == "early" else "late")
    assert "round_deadline" in tags_of(ec2, "early")


def test_one_that_cannot_be_tagged_is_stopped_again(run):
    report, ec2, _ = run
    assert told(report, "mute", "after refusal")["claimed"] is True
    message = refusal(report, "mute")
    assert f"{IDS['mute']} was started, and cannot be tagged: these credentials may not do that" in message
    assert state(ec2, IDS["mute"]) == "stopped"


def test_check_mode_reads_and_changes_nothing(run):
    report, ec2, _ = run
    assert report["checked"]["rc"] == 0
    assert changes(report["checked"], "checked") == ["Ask EC2 to start the instance"]
    assert told(report["checked"], "checked", "after start") == {
        "address": "",
        "found_id": IDS["checked"],
        "claimed": False,
    }
    assert state(ec2, IDS["checked"]) == "stopped"
    assert "round" not in tags_of(ec2, "checked")


def test_an_unconfirmed_stop_goes_on(run):
    """The role gave up waiting and said so; what hindered the machine ends later."""
    _, ec2, stubborn = run
    assert state(ec2, IDS["stuck"]) == "stopping"
    os.killpg(stubborn.pid, signal.SIGKILL)
    until(lambda: state(ec2, IDS["stuck"]) == "stopped")
