"""Emulated EC2 machines that boot: SSH, disk, addresses, power-off, console, faults, and their removal."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.exceptions import ClientError
from ec2_machines import BASE, Machines, engine_or_skip, left, machine_image, machines, remove
from ec2_support import INSTANCE, call, describe, outcomes, play, refusal, state, until

OTHER = "i-0123456789abcdef1"
BOTH = [{"id": INSTANCE, "name": "worker"}, {"id": OTHER, "shutdown_behavior": "terminate"}]


@pytest.fixture(scope="module")
def image() -> str:
    engine_or_skip()
    return machine_image(BASE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    made = tmp_path_factory.mktemp("ec2")
    yield made
    remove(made)
    assert left(made) == []


@pytest.fixture(scope="module")
def emulated(folder: Path, image: str) -> Iterator[Machines]:
    with machines(folder, BOTH, image) as running:
        yield running


@pytest.fixture
def cloud(emulated: Machines) -> Iterator[Machines]:
    """The first instance is stopped before and after each test, and nothing more goes wrong."""
    yield emulated
    emulated.order()
    if state(emulated.ec2) in ("running", "stopping"):
        emulated.stop(INSTANCE)


def test_a_machine_boots_and_is_a_computer_of_its_own(cloud: Machines) -> None:
    found = cloud.boot(INSTANCE)
    assert cloud.tell(INSTANCE, "cat /var/lib/cloud/data/instance-id") == INSTANCE
    assert cloud.tell(INSTANCE, "hostname") == f"ip-{found['PrivateIpAddress'].replace('.', '-')}"
    assert found["PublicIpAddress"] != found["PrivateIpAddress"]
    assert cloud.tell(INSTANCE, "ps -p 1 -o comm=") == "systemd"
    said = cloud.tell(INSTANCE, f'docker run --rm --network none {BASE} python3 -c "print(6 * 7)"')
    assert said == "42", "its own engine has the base image, without a registry"
    ours = subprocess.run(["docker", "ps", "--all", "--quiet"], capture_output=True, text=True, check=True)
    inner = cloud.tell(INSTANCE, f"docker create {BASE} true")
    assert inner[:12] not in ours.stdout
    assert cloud.tell(INSTANCE, "docker ps --all --quiet --no-trunc") == inner


def test_a_machine_that_powers_itself_off_is_stopped_and_keeps_its_disk(cloud: Machines) -> None:
    before = cloud.boot(INSTANCE)
    cloud.tell(INSTANCE, "echo kept > /srv/file; docker tag $(docker images --quiet | head -n 1) kept; sync")
    cloud.tell(INSTANCE, "echo another key >> /home/ubuntu/.ssh/authorized_keys")
    pinned = cloud.known_hosts.read_text()
    cloud.ssh(INSTANCE, "systemctl poweroff")
    until(lambda: state(cloud.ec2) == "stopped")
    stopped = describe(cloud.ec2)
    assert stopped["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"
    assert "PublicIpAddress" not in stopped
    after = cloud.boot(INSTANCE)
    assert cloud.known_hosts.read_text() == pinned, "the host keys belong to the disk"
    assert cloud.console_keys(INSTANCE) == [line.split(" ", 1)[1] for line in pinned.splitlines()][:3]
    assert cloud.tell(INSTANCE, "cat /srv/file") == "kept"
    [key, other] = cloud.tell(INSTANCE, "cat /home/ubuntu/.ssh/authorized_keys").splitlines()
    assert (key.split()[0], other) == ("ssh-ed25519", "another key"), "the pair's key is added once"
    assert "kept" in cloud.tell(INSTANCE, "docker images")
    assert after["PrivateIpAddress"] == before["PrivateIpAddress"]
    assert after["PublicIpAddress"] != before["PublicIpAddress"]


def test_a_machine_that_reboots_stays_running_at_its_address(cloud: Machines) -> None:
    before = cloud.boot(INSTANCE)
    first = cloud.tell(INSTANCE, "cat /proc/1/stat").split()[21]
    cloud.ssh(INSTANCE, "systemctl reboot")

    def rebooted() -> bool:
        assert state(cloud.ec2) == "running"
        answer = cloud.ssh(INSTANCE, "cat /proc/1/stat")
        return answer.returncode == 0 and answer.stdout.split()[21] != first

    until(rebooted, 60)
    assert describe(cloud.ec2) == before


def test_a_machine_whose_shutdown_behaviour_is_terminate_is_gone_with_its_disk(cloud: Machines) -> None:
    cloud.boot(OTHER)
    assert any(OTHER in name for name in left(cloud.folder))
    cloud.ssh(OTHER, "systemctl poweroff")
    until(lambda: state(cloud.ec2, OTHER) == "terminated")
    assert not any(OTHER in name for name in left(cloud.folder))


def test_an_elastic_ip_stays(cloud: Machines, tmp_path: Path) -> None:
    """Associated with Ansible's own module, to a stopped instance; moved away while the machine runs."""
    api = {
        "region": "eu-west-1",
        "endpoint_url": cloud.ec2.meta.endpoint_url,
        "access_key": "any",
        "secret_key": "any",
    }
    wanted = {**api, "device_id": INSTANCE, "in_vpc": True}
    tasks = [{"amazon.aws.ec2_eip": wanted}, {"amazon.aws.ec2_eip": wanted}]
    environment = {"NO_PROXY": "*", "no_proxy": "*"}
    report = play(
        tmp_path, [{"hosts": "localhost", "gather_facts": False, "tasks": tasks}], {}, **environment
    )
    first, again = outcomes(report, "localhost")
    assert (first["changed"], again["changed"]) == (True, False)
    elastic = first["public_ip"]
    assert describe(cloud.ec2)["PublicIpAddress"] == elastic, "a stopped instance keeps it"
    for _ in range(2):
        assert cloud.boot(INSTANCE)["PublicIpAddress"] == elastic
        cloud.stop(INSTANCE)
    cloud.boot(INSTANCE)
    cloud.ec2.disassociate_address(PublicIp=elastic)
    assert describe(cloud.ec2)["PublicIpAddress"] != elastic
    cloud.answers(INSTANCE)
    [address] = cloud.ec2.describe_addresses()["Addresses"]
    assert "InstanceId" not in address
    cloud.ec2.release_address(AllocationId=address["AllocationId"])
    assert cloud.ec2.describe_addresses()["Addresses"] == []
    with pytest.raises(ClientError, match=r"InvalidAllocationID\.NotFound"):
        cloud.ec2.associate_address(InstanceId=INSTANCE, AllocationId=address["AllocationId"])


def test_a_machine_without_ssh_runs_and_refuses(cloud: Machines) -> None:
    cloud.boot(INSTANCE)
    cloud.stop(INSTANCE)
    cloud.order({"machine": "no_ssh", "instance": INSTANCE})
    cloud.ec2.start_instances(InstanceIds=[INSTANCE])
    until(lambda: state(cloud.ec2) == "running")
    until(lambda: cloud.console_keys(INSTANCE))
    until(lambda: "refused" in cloud.ssh(INSTANCE, "true").stderr)
    cloud.stop(INSTANCE)
    cloud.boot(INSTANCE)


def test_a_machine_that_boots_slowly_is_running_before_it_answers(cloud: Machines) -> None:
    cloud.order({"machine": "slow_boot", "seconds": 4})
    cloud.ec2.start_instances(InstanceIds=[INSTANCE])
    until(lambda: state(cloud.ec2) == "running")
    assert cloud.console_keys(INSTANCE) == []
    cloud.boot(INSTANCE)


def test_a_machine_loses_its_network_and_regains_it(cloud: Machines) -> None:
    def cut_off(times: int) -> bool:
        return (cloud.folder / "server.log").read_text().count("lost its network") == times

    before = cloud.boot(INSTANCE)
    began = cloud.tell(INSTANCE, "cat /proc/1/stat").split()[21]
    cloud.order({"machine": "no_network", "seconds": 8})
    until(lambda: cut_off(1))
    assert cloud.ssh(INSTANCE, "true").returncode == 255
    assert state(cloud.ec2) == "running"
    cloud.answers(INSTANCE)
    assert describe(cloud.ec2) == before
    assert cloud.tell(INSTANCE, "cat /proc/1/stat").split()[21] == began, "it ran on"
    cloud.order({"machine": "no_network"})
    until(lambda: cut_off(2))
    assert cloud.ssh(INSTANCE, "true").returncode == 255
    cloud.stop(INSTANCE)
    cloud.boot(INSTANCE)


def test_a_full_disk_takes_not_a_byte_more_until_the_machine_is_off(cloud: Machines) -> None:
    cloud.boot(INSTANCE)
    cloud.tell(INSTANCE, "mkdir -p /srv/full && echo before > /srv/full/file")
    cloud.order({"machine": "full_disk", "places": ["/srv/full", "/srv/absent"]})
    written = until(
        lambda: [one for one in [cloud.ssh(INSTANCE, "cat /bin/sh > /srv/full/more")] if one.returncode]
    )
    assert "No space left on device" in written[0].stderr
    assert cloud.tell(INSTANCE, "cat /srv/full/file") == "before"
    assert cloud.tell(INSTANCE, "df --output=avail /srv/full | tail -n 1").strip() == "0"
    cloud.stop(INSTANCE)
    cloud.boot(INSTANCE)
    cloud.tell(INSTANCE, "echo after > /srv/full/more")


def test_a_machine_hangs_in_stopping_until_it_is_asked_again(cloud: Machines) -> None:
    cloud.boot(INSTANCE)
    cloud.order({"machine": "hang_in_stopping"})
    cloud.ec2.stop_instances(InstanceIds=[INSTANCE])
    until(lambda: "does not stop" in (cloud.folder / "server.log").read_text())
    assert state(cloud.ec2) == "stopping"
    cloud.stop(INSTANCE)


@pytest.mark.parametrize("code", ["InsufficientInstanceCapacity", "RequestLimitExceeded", "RequestExpired"])
def test_the_api_refuses_as_often_as_is_ordered(cloud: Machines, code: str) -> None:
    cloud.order({"action": "StartInstances", "code": code, "times": 2})
    for _ in range(2):
        with pytest.raises(ClientError, match=code):
            cloud.ec2.start_instances(InstanceIds=[INSTANCE])
    assert state(cloud.ec2) == "stopped"
    cloud.ec2.start_instances(InstanceIds=[INSTANCE], DryRun=False)
    until(lambda: state(cloud.ec2) == "running")


def test_the_role_pins_host_keys_once(cloud: Machines, tmp_path: Path) -> None:
    """From the console, given, or not at all; a pinned key is never replaced."""
    cloud.boot(INSTANCE)
    keys = cloud.console_keys(INSTANCE)
    assert {key.split()[0] for key in keys} == {"ecdsa-sha2-nistp256", "ssh-ed25519", "ssh-rsa"}
    learned, given, silent = (str(tmp_path / name) for name in ("learned", "given", "silent"))
    # Where a secret shows up in a module's answer, Ansible masks it: too short a one is part of many a key.
    api = {
        "instance_power_endpoint_url": cloud.ec2.meta.endpoint_url,
        "instance_power_region": "eu-west-1",
        "instance_power_access_key": "no-part-of-a-key",
        "instance_power_secret_key": "no-part-of-a-key",
        "instance_power_poll_seconds": 0.1,
        "instance_power_console_timeout": 0.2,
    }

    def trust(file: str, instance: str, **more: object) -> dict[str, object]:
        inputs = {"instance_power_known_hosts": file, "instance_power_found_id": instance, **more}
        role = {"name": "instance_power", "tasks_from": "trust"}
        return {"ansible.builtin.include_role": role, "vars": inputs}

    tasks = [
        trust(learned, INSTANCE),
        trust(learned, INSTANCE, instance_power_host_keys=["ssh-ed25519 AAAAother"]),
        trust(given, INSTANCE, instance_power_host_keys=keys[1:2]),
        trust("", INSTANCE),
        trust(silent, OTHER),
    ]
    inventory = {"all": {"hosts": {"machine": {"ansible_host": "192.0.2.1", **api}}}}
    report = play(tmp_path, [{"hosts": "machine", "gather_facts": False, "tasks": tasks}], inventory)
    assert "no SSH host keys in its console output" in refusal(report, "machine")
    assert sorted(Path(learned).read_text().splitlines()) == sorted(f"{INSTANCE} {key}" for key in keys)
    assert Path(given).read_text() == f"{INSTANCE} {keys[1]}\n"
    assert not Path(silent).exists()


def test_a_machine_outlives_the_emulator_and_what_it_does_meanwhile_is_seen(
    tmp_path: Path, image: str
) -> None:
    other = tmp_path / "other"
    folder = tmp_path / "ec2"
    try:
        with machines(other, [{"id": OTHER}], image):
            pass
        with machines(folder, [{"id": INSTANCE}], image) as cloud:
            cloud.boot(INSTANCE)
        with machines(folder, [{"id": INSTANCE}], image) as cloud:
            assert state(cloud.ec2) == "running"
            cloud.answers(INSTANCE)
            refused = call("remove", folder)
            assert refused.returncode == 2
            assert "a round uses the machines" in refused.stderr
            cloud.ssh(INSTANCE, "systemd-run --on-active=1 systemctl poweroff")
        name = next(one for one in left(folder) if INSTANCE in one)
        subprocess.run(["docker", "wait", name], check=True, capture_output=True, timeout=60)
        with machines(folder, [{"id": INSTANCE}], image) as cloud:
            until(lambda: state(cloud.ec2) == "stopped")
            assert describe(cloud.ec2)["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"
        assert len(remove(folder)) == 3
        assert left(folder) == []
        assert len(left(other)) == 1, "only what is this folder's is removed"
    finally:
        for one in (folder, other):
            remove(one)


def test_no_image_no_engine_no_key_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine_or_skip()
    absent = call("image", "no-such-image:1")
    assert absent.returncode == 2
    assert "no-such-image:1 is neither in this engine nor can it be pulled" in absent.stderr
    both = call("image", "--bare", BASE)
    assert both.returncode == 2
    assert "a bare machine has no engine, and so no images" in both.stderr
    bad = call("start", tmp_path / "new", instances=[{"id": INSTANCE, "public_key": "AAAA"}])
    assert "public_key is no SSH public key" in bad.stderr
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/absent.sock")
    silent = call("image")
    assert silent.returncode == 2
    assert "no container engine answers" in silent.stderr
    assert all(one.stderr.count("\n") == 1 for one in (absent, both, bad, silent))
