"""The emulated EC2: states, persistence, machines that end, and its own end."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from botocore.exceptions import ClientError
from ec2_support import (
    INSTANCE,
    PROGRAM,
    call,
    client,
    describe,
    emulator,
    play,
    process_group,
    start,
    started,
    state,
    until,
)

OTHER = "i-0123456789abcdef1"
ONE = [{"id": INSTANCE, "name": "worker", "type": "c7i.large", "tags": {"lab": "north"}}]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("shared")
    both = [*ONE, {"id": OTHER, "shutdown_behavior": "terminate"}]
    with emulator(folder, both) as ec2:
        yield ec2, folder / "machines"


def refused(action, *arguments, **named) -> str:
    with pytest.raises(ClientError) as error:
        action(*arguments, **named)
    return error.value.response["Error"]["Code"]


@pytest.fixture
def group():
    """Start shells as leaders of their own process groups, listed as running on a machine."""
    with ExitStack() as leaders:

        def begin(script: str, machine: Path) -> subprocess.Popen:
            leader = leaders.enter_context(process_group(script))
            with (machine / "processes").open("a") as listed:
                listed.write(f"{leader.pid}\n")
            return leader

        yield begin


def noticed(machine: Path, *pids: int) -> None:
    wanted = {str(pid) for pid in pids}
    until(lambda: wanted <= set(json.loads((machine / "boot.json").read_text())["groups"]))


def test_states_addresses_and_reasons_follow_one_another(shared):
    ec2, machines = shared
    new = describe(ec2)
    assert new["State"] == {"Code": 80, "Name": "stopped"}
    assert new["InstanceType"] == "c7i.large"
    assert {tag["Key"]: tag["Value"] for tag in new["Tags"]} == {"Name": "worker", "lab": "north"}
    assert "PublicIpAddress" not in new

    change = ec2.start_instances(InstanceIds=[INSTANCE])["StartingInstances"][0]
    assert (change["PreviousState"]["Name"], change["CurrentState"]["Name"]) == ("stopped", "pending")
    assert "PublicIpAddress" not in describe(ec2)
    assert refused(ec2.stop_instances, InstanceIds=[INSTANCE]) == "IncorrectInstanceState"
    until(lambda: state(ec2) == "running")
    running = describe(ec2)
    assert running["PublicIpAddress"] == running["PrivateIpAddress"] == "127.0.0.1"
    assert running["LaunchTime"] >= new["LaunchTime"]
    assert (machines / INSTANCE / "instance-id").read_text().strip() == INSTANCE
    change = ec2.start_instances(InstanceIds=[INSTANCE])["StartingInstances"][0]
    assert (change["PreviousState"]["Name"], change["CurrentState"]["Name"]) == ("running", "running")

    change = ec2.stop_instances(InstanceIds=[INSTANCE])["StoppingInstances"][0]
    assert (change["PreviousState"]["Name"], change["CurrentState"]["Name"]) == ("running", "stopping")
    assert refused(ec2.start_instances, InstanceIds=[INSTANCE]) == "IncorrectInstanceState"
    until(lambda: state(ec2) == "stopped")
    stopped = describe(ec2)
    assert "PublicIpAddress" not in stopped
    assert stopped["PrivateIpAddress"] == "127.0.0.1"
    assert stopped["StateReason"]["Code"] == "Client.UserInitiatedShutdown"
    assert stopped["StateTransitionReason"].startswith("User initiated (")
    assert not (machines / INSTANCE / "instance-id").exists()
    change = ec2.stop_instances(InstanceIds=[INSTANCE])["StoppingInstances"][0]
    assert change["CurrentState"]["Name"] == "stopped"


def test_requests_that_ec2_would_refuse(shared):
    ec2, _ = shared
    assert refused(ec2.start_instances, InstanceIds=["i-00000000"]) == "InvalidInstanceID.NotFound"
    assert refused(ec2.describe_instances, InstanceIds=["i-00000000"]) == "InvalidInstanceID.NotFound"
    assert refused(ec2.describe_instances, InstanceIds=["worker"]) == "InvalidInstanceID.Malformed"
    tags = [{"Key": "a", "Value": "b"}]
    assert refused(ec2.create_tags, Resources=["i-00000000"], Tags=tags) == "InvalidInstanceID.NotFound"
    assert refused(ec2.run_instances, MinCount=1, MaxCount=1) == "InvalidAction"
    assert refused(ec2.terminate_instances, InstanceIds=[INSTANCE]) == "InvalidAction"
    assert refused(ec2.start_instances, InstanceIds=[INSTANCE], DryRun=True) == "DryRunOperation"


def test_shutdown_behaviour_is_read_and_modified(shared):
    ec2, _ = shared

    def behavior() -> str:
        name = "instanceInitiatedShutdownBehavior"
        answer = ec2.describe_instance_attribute(InstanceId=OTHER, Attribute=name)
        return answer["InstanceInitiatedShutdownBehavior"]["Value"]

    def modify(value: str) -> None:
        ec2.modify_instance_attribute(InstanceId=OTHER, InstanceInitiatedShutdownBehavior={"Value": value})

    assert behavior() == "terminate"
    modify("stop")
    assert behavior() == "stop"
    assert refused(modify, "hibernate") == "InvalidParameterValue"
    modify("terminate")
    assert behavior() == "terminate"


def test_the_type_is_modified_while_the_instance_is_stopped(tmp_path):
    def modify(kind: str) -> None:
        ec2.modify_instance_attribute(InstanceId=INSTANCE, InstanceType={"Value": kind})

    with emulator(tmp_path, [{"id": INSTANCE, "type": "c5.large"}]) as ec2:
        modify("m5.large")
        assert describe(ec2)["InstanceType"] == "m5.large"
        started(ec2)
        assert refused(modify, "c5.large") == "IncorrectInstanceState"
        assert describe(ec2)["InstanceType"] == "m5.large"
        ec2.stop_instances(InstanceIds=[INSTANCE])
        until(lambda: state(ec2) == "stopped")
    with emulator(tmp_path, [{"id": INSTANCE, "type": "c5.large"}]) as ec2:
        assert describe(ec2)["InstanceType"] == "m5.large"


def test_filters_and_tags(shared):
    ec2, machines = shared

    def found(**filters: str) -> list[str]:
        wanted = [{"Name": name, "Values": [value]} for name, value in filters.items()]
        answer = ec2.describe_instances(Filters=wanted)["Reservations"]
        return [instance["InstanceId"] for one in answer for instance in one["Instances"]]

    ec2.create_tags(Resources=[OTHER], Tags=[{"Key": "round", "Value": "r1"}])
    assert found(**{"tag:round": "r1"}) == [OTHER]
    assert found(**{"tag:lab": "north", "instance-state-name": "stopped"}) == [INSTANCE]
    assert found(**{"instance-id": "i-00000000"}) == []
    assert json.loads((machines / OTHER / "state.json").read_text())["tags"] == {"round": "r1"}
    ec2.delete_tags(Resources=[OTHER], Tags=[{"Key": "round"}])
    assert found(**{"tag:round": "r1"}) == []


def test_a_machine_that_powers_itself_off_is_stopped_or_terminated(tmp_path):
    both = [*ONE, {"id": OTHER, "shutdown_behavior": "terminate"}]
    with emulator(tmp_path, both) as ec2:
        for instance in (INSTANCE, OTHER):
            started(ec2, instance)
            (tmp_path / "machines" / instance / "poweroff").touch()
        until(lambda: (state(ec2), state(ec2, OTHER)) == ("stopped", "terminated"))
        for instance in (INSTANCE, OTHER):
            assert describe(ec2, instance)["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"
            assert not (tmp_path / "machines" / instance / "instance-id").exists()
        assert refused(ec2.start_instances, InstanceIds=[OTHER]) == "IncorrectInstanceState"
        assert refused(ec2.stop_instances, InstanceIds=[OTHER]) == "IncorrectInstanceState"
        started(ec2)
        assert not (tmp_path / "machines" / INSTANCE / "poweroff").exists()


def test_a_stop_ends_what_runs_on_the_machine_and_nothing_else(tmp_path, group):
    machine = tmp_path / "machines" / INSTANCE
    older = subprocess.Popen(["sleep", "600"], start_new_session=True)
    member = subprocess.Popen(["sleep", "600"])  # in this test's own process group
    try:
        with emulator(tmp_path, ONE) as ec2:
            started(ec2)
            gentle = group("sleep 600 & wait", machine)
            stubborn = group("trap '' TERM; echo ready; while :; do sleep 600; done", machine)
            assert stubborn.stdout.readline() == b"ready\n"
            orphaned = group("sleep 600 & echo $!", machine)
            noticed(machine, gentle.pid, stubborn.pid, orphaned.pid)
            assert orphaned.wait(10) == 0  # the leader is gone, its child is not
            with (machine / "processes").open("a") as listed:
                listed.write(f"{older.pid}\n{member.pid}\n{os.getpid()}\n1\n0\n-1\nnonsense\n")

            ec2.stop_instances(InstanceIds=[INSTANCE])
            until(lambda: state(ec2) == "stopped")
            assert gentle.wait(10) == -signal.SIGTERM
            assert stubborn.wait(10) == -signal.SIGKILL
            child = int(orphaned.stdout.readline())
            # Its parent is init by now, which reaps it.
            until(lambda: not _alive(child))
            assert older.poll() is None
            assert member.poll() is None
    finally:
        for process in (older, member):
            process.kill()
            process.wait()


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_a_process_id_that_was_used_again_is_not_hit(tmp_path, group, monkeypatch):
    monkeypatch.syspath_prepend(str(PROGRAM))
    from ec2_emulator.backend import LocalhostBackend

    backend = LocalhostBackend(tmp_path, grace=0.5)
    backend.start(INSTANCE)
    machine = tmp_path / INSTANCE
    later = group("sleep 600", machine)
    early = group("sleep 600", machine)
    # One was seen on the machine, but by now its id belongs to a process that started at another time.
    assert not backend.is_off(INSTANCE)
    memory = json.loads((machine / "boot.json").read_text())
    assert set(memory["groups"]) == {str(later.pid), str(early.pid)}
    memory["groups"][str(later.pid)] -= 60
    # The other one's id was listed before its process started, so it was another's.
    del memory["groups"][str(early.pid)]
    (machine / "boot.json").write_text(json.dumps(memory))
    hour_ago = time.time() - 3600
    os.utime(machine / "processes", (hour_ago, hour_ago))
    backend.stop(INSTANCE)
    assert later.poll() is None
    assert early.poll() is None
    # Once not its own any more, never again.
    os.utime(machine / "processes")
    backend.stop(INSTANCE)
    assert later.poll() is None
    assert early.poll() is None


def test_what_happened_is_kept_between_rounds(tmp_path):
    machine = tmp_path / "machines" / INSTANCE
    with emulator(tmp_path, ONE) as ec2:
        started(ec2)
        ec2.create_tags(Resources=[INSTANCE], Tags=[{"Key": "round", "Value": "r1"}])
        ec2.modify_instance_attribute(
            InstanceId=INSTANCE, InstanceInitiatedShutdownBehavior={"Value": "terminate"}
        )
        before = describe(ec2)
    moved = ONE[0] | {"tags": {"lab": "south"}}
    with emulator(tmp_path, [moved]) as ec2:
        after = describe(ec2)
        tags = {tag["Key"]: tag["Value"] for tag in after.pop("Tags")}
        assert after == {key: value for key, value in before.items() if key != "Tags"}
        assert after["State"]["Name"] == "running"
        assert tags == {"Name": "worker", "lab": "south", "round": "r1"}
        (machine / "poweroff").touch()
        until(lambda: state(ec2) == "terminated")  # what the API set counts while the declaration is the same
    # As if the server had ended in the middle of a stop, and the declaration had changed since.
    kept = json.loads((machine / "state.json").read_text())
    (machine / "state.json").write_text(json.dumps(kept | {"state": "stopping", "shutdown_behavior": "stop"}))
    with emulator(tmp_path, [moved | {"shutdown_behavior": "terminate"}]) as ec2:
        until(lambda: state(ec2) == "stopped")
        attribute = "instanceInitiatedShutdownBehavior"
        answer = ec2.describe_instance_attribute(InstanceId=INSTANCE, Attribute=attribute)
        assert answer["InstanceInitiatedShutdownBehavior"]["Value"] == "terminate"


def test_the_server_ends_with_its_last_user(tmp_path):
    users = [subprocess.Popen(["sleep", "600"]) for _ in range(2)]
    try:
        first = start(tmp_path, ONE, f"--watch-pid={users[0].pid}")
        second = start(tmp_path, ONE, f"--watch-pid={users[1].pid}")
        assert first["started"]
        assert not second["started"]
        assert first["url"] == second["url"]
        other = call("start", tmp_path, f"--watch-pid={users[1].pid}", instances=[{"id": OTHER}])
        assert other.returncode == 2
        assert "a server with other instances runs on" in other.stderr
        done = json.loads(call("release", tmp_path, f"--watch-pid={users[0].pid}").stdout)
        assert done == {"released": True, "ended": False}
        started(client(first["url"]))

        users[1].kill()  # and not reaped: a zombie uses nothing any more
        until(lambda: not _alive(first["pid"]))
        assert not (tmp_path / "endpoint.json").exists()
    finally:
        for user in users:
            user.kill()
            user.wait()


def test_a_server_that_was_killed_is_replaced_and_one_that_is_ended_leaves_no_endpoint(tmp_path):
    me = f"--watch-pid={os.getpid()}"
    first = start(tmp_path, ONE, me)
    os.kill(first["pid"], signal.SIGKILL)
    until(lambda: not _alive(first["pid"]))
    second = start(tmp_path, ONE, me)
    assert second["started"]
    assert second["pid"] != first["pid"]
    os.kill(second["pid"], signal.SIGTERM)
    until(lambda: not _alive(second["pid"]))
    assert not (tmp_path / "endpoint.json").exists()


@pytest.mark.parametrize(
    ("instances", "words"),
    [
        ([{"id": "worker"}], "instance worker: its id must be i-"),
        ([{"name": "worker"}], "its id must be i-"),
        ([{"id": INSTANCE, "kind": "c7i"}], "unknown field 'kind'; remove it"),
        ([{"id": INSTANCE, "shutdown_behavior": "off"}], "make it stop or terminate"),
        ([{"id": INSTANCE}, {"id": INSTANCE}], f"instance {INSTANCE} is declared twice"),
    ],
)
def test_a_bad_declaration_is_refused_in_one_line(tmp_path, instances, words):
    done = call("start", tmp_path / "new", f"--watch-pid={os.getpid()}", instances=instances)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_a_damaged_state_is_named(tmp_path):
    (tmp_path / "machines" / INSTANCE).mkdir(parents=True)
    (tmp_path / "machines" / INSTANCE / "state.json").write_text("{")
    done = call("start", tmp_path, f"--watch-pid={os.getpid()}", instances=ONE)
    assert done.returncode == 2
    assert "state.json cannot be read" in done.stderr
    assert "remove the folder" in done.stderr


def test_the_process_table_is_read_alike_through_ps(monkeypatch):
    """What other systems than Linux use, as far as it can be tried here."""
    monkeypatch.syspath_prepend(str(PROGRAM))
    from ec2_emulator import processes

    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
    try:
        real = processes.look(child.pid)
        monkeypatch.setattr(processes, "ON_LINUX", False)
        told = processes.look(child.pid)
        assert real
        assert told
        assert (told.pid, told.parent, told.group, told.ended) == (real.pid, os.getpid(), child.pid, False)
        assert told.command == real.command
        assert abs(told.started - time.time()) < 120
        assert [one.pid for one in processes.members(child.pid)] == [child.pid]
    finally:
        child.communicate(b"\n")
    assert processes.look(child.pid) is None


def test_the_role_finds_its_playbook_run_and_the_server_ends_with_it(tmp_path):
    tasks = [
        {"ansible.builtin.include_role": {"name": "ec2_emulator"}},
        {"ansible.builtin.include_role": {"name": "ec2_emulator"}},
        {"ansible.builtin.uri": {"url": "{{ ec2_emulator_endpoint }}/health", "return_content": True}},
    ]
    variables = {"ec2_emulator_instances": ONE, "ec2_emulator_directory": str(tmp_path / "ec2")}
    plays = [{"hosts": "localhost", "gather_facts": False, "vars": variables, "tasks": tasks}]
    report = play(tmp_path, plays, {})
    assert report["rc"] == 0
    results = [one for play_ in report["plays"] for task in play_["tasks"] for one in task["hosts"].values()]
    server = next(one["json"]["pid"] for one in results if "json" in one)
    # Nobody stopped it: it ended because the run did.
    until(lambda: not _alive(server))
    commands = [one for one in results if "ec2_emulator" in one.get("cmd", [])]
    assert [one["changed"] for one in commands] == [True, False]


def test_the_role_does_nothing_without_instances_and_stops_what_it_started(tmp_path):
    role = {"ansible.builtin.include_role": {"name": "ec2_emulator"}}
    stop = {"ansible.builtin.include_role": {"name": "ec2_emulator", "tasks_from": "stop"}}
    nothing = {"ansible.builtin.assert": {"that": "ec2_emulator_endpoint == ''"}}
    plays = [{"hosts": "localhost", "gather_facts": False, "tasks": [role, nothing, stop]}]
    for variables in (
        {"ec2_emulator_instances": ONE, "ec2_emulator_directory": "relative"},
        {"ec2_emulator_instances": [{"id": "worker"}], "ec2_emulator_directory": str(tmp_path / "bad")},
        {"ec2_emulator_instances": ONE, "ec2_emulator_directory": str(tmp_path / "ec2")},
    ):
        rescue = [{"ansible.builtin.debug": {"msg": "{{ ansible_failed_result.msg }}"}}]
        block = [{"block": [role, stop], "rescue": rescue}]
        plays.append({"hosts": "localhost", "gather_facts": False, "vars": variables, "tasks": block})
    report = play(tmp_path, plays, {})
    assert report["rc"] == 0
    told = json.dumps(report)
    assert "'relative', which is no absolute path" in told
    assert "instance worker: its id must be i-" in told
    assert not (tmp_path / "bad").exists()
    assert not (tmp_path / "ec2" / "endpoint.json").exists()
    log = (tmp_path / "ec2" / "server.log").read_text()
    assert log.rstrip().endswith("ended")


def test_the_server_ends_when_its_folder_is_removed(tmp_path):
    folder = tmp_path / "ec2"
    server = start(folder, ONE, f"--watch-pid={os.getpid()}")
    started(client(server["url"]))
    folder.rename(tmp_path / "gone")  # at once, while the server may be writing in it
    until(lambda: not _alive(server["pid"]))
    assert not folder.exists()
