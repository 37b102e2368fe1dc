"""SSH on a machine that boots: through AWS Systems Manager, and to a private repository with a deploy key."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import role_support
from booted import INSTANCE, Booted
from ec2_machines import Machines, engine_or_skip, machine_image, machines, remove
from ec2_support import REPOSITORY, describe, outcomes, play, refusal
from lab_fleet import lab_fleet

#: Stands for the AWS CLI: notes its words, and is the way to the machine's sshd that the agent would be.
AWS = """#!/bin/sh
printf '%s\\n' "$@" >"{words}"
exec docker exec --interactive {container} /usr/sbin/sshd -i
"""


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    engine_or_skip()
    folder = tmp_path_factory.mktemp("ec2")
    try:
        with machines(folder, [{"id": INSTANCE}], machine_image()) as made:
            made.boot(INSTANCE)
            yield made
    finally:
        remove(folder)


@pytest.fixture
def fleet(cloud: Machines, tmp_path: Path) -> Path:
    """The fleet's inventory, with our machine for one of its hosts."""
    inventory = lab_fleet(REPOSITORY, tmp_path)
    (inventory / "host_vars").mkdir()
    own = {
        "instance_power_instance_id": INSTANCE,
        "instance_power_endpoint_url": cloud.ec2.meta.endpoint_url,
        "instance_power_access_key": "any",
        "instance_power_secret_key": "any",
        "instance_power_known_hosts": str(cloud.known_hosts),
        "instance_power_join": True,
        "instance_power_connection": "ssm",
    }
    lines = "".join(f"{name}: {value!r}\n" for name, value in own.items())
    (inventory / "host_vars" / "cpu1.yml").write_text(lines)
    return inventory


def test_ssh_goes_through_systems_manager(cloud: Machines, fleet: Path, tmp_path: Path) -> None:
    """Known by its id, with the host key pinned for it; refused early where the programs are missing."""
    role = {"name": "instance_power"}
    tasks = [
        {"ansible.builtin.import_role": role | {"tasks_from": "preflight"}},
        {"ansible.builtin.import_role": role | {"tasks_from": "look"}},
        {"name": "address", "ansible.builtin.debug": {"msg": "{{ instance_power_address }}"}},
        {"name": "read", "ansible.builtin.slurp": {"src": "/var/lib/cloud/data/instance-id"}},
    ]
    plays = [{"hosts": "cpu1", "gather_facts": False, "tasks": tasks}]
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "aws").write_text(
        AWS.format(words=tmp_path / "words", container=Booted(cloud.ec2, cloud.folder).container)
    )
    (programs / "aws").chmod(0o755)
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "WORKER_SSH_KEY_FILE": str(cloud.folder / "key"),
        "ANSIBLE_SSH_ARGS": "-F none",
    }
    options = ("-i", str(fleet / "hosts.yml"))
    refused = play(tmp_path, plays, {}, *options, **environment)
    assert "this computer lacks session-manager-plugin" in refusal(refused, "cpu1")
    (programs / "session-manager-plugin").symlink_to("aws")
    done = play(tmp_path, plays, {}, *options, **environment)
    results = {one["task"]: one for one in outcomes(done, "cpu1")}
    assert done["rc"] == 0, results
    assert results["address"]["msg"] == INSTANCE
    assert "content" in results["read"]
    words = (tmp_path / "words").read_text().split()
    assert words[:2] == ["ssm", "start-session"]
    given = dict(zip(words[2::2], words[3::2], strict=True))
    assert given == {
        "--region": "us-east-1",
        "--target": INSTANCE,
        "--document-name": "AWS-StartSSHSession",
        "--parameters": "portNumber=22",
    }


def test_a_deploy_key_opens_a_private_repository(cloud: Machines, tmp_path: Path) -> None:
    """The control node has the key and pins the server; who has another key, or no pin, is refused."""
    cloud.tell(INSTANCE, "git init --quiet --bare --initial-branch=main /home/ubuntu/lab.git")
    cloud.tell(INSTANCE, "chown -R ubuntu /home/ubuntu/lab.git")
    address = describe(cloud.ec2, INSTANCE)["PublicIpAddress"]
    pinned, key = tmp_path / "known_hosts", cloud.folder / "key"
    pinned.write_text(cloud.known_hosts.read_text().replace(INSTANCE, address))
    work, url = tmp_path / "work", f"ubuntu@{address}:lab.git"
    identity = ["git", "-c", "user.name=Tester", "-c", "user.email=tester@example.org", "-C", str(work)]
    ssh = f"ssh -F none -o IdentitiesOnly=yes -i {key} -o UserKnownHostsFile={pinned}"
    subprocess.run(["git", "init", "--quiet", "--initial-branch=main", work], check=True)
    subprocess.run([*identity, "commit", "--quiet", "--allow-empty", "--message=private"], check=True)
    subprocess.run(
        [*identity, "push", "--quiet", url, "main"], env=os.environ | {"GIT_SSH_COMMAND": ssh}, check=True
    )
    head = subprocess.run([*identity, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    commit = head.stdout.strip()

    def find(key_file: Path, known_hosts: Path) -> role_support.Outcome:
        inputs = {"workflow_source_key_file": str(key_file), "workflow_source_known_hosts": str(known_hosts)}
        return role_support.play(
            "workflow_source",
            tmp_path,
            ("workflow_source_commit",),
            {},
            "preflight",
            workflow_source_repository=url,
            **inputs,
        )

    assert find(key, pinned).facts["workflow_source_commit"] == commit
    other = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)
    assert "cannot be read" in find(other, pinned).refusal()
    (tmp_path / "nobody").touch()
    assert "cannot be read" in find(key, tmp_path / "nobody").refusal()
    worker = tmp_path / "worker"
    done = role_support.play(
        "workflow_source",
        tmp_path,
        workflow_source_repository=url,
        workflow_source_key_file=str(key),
        workflow_source_known_hosts=str(pinned),
        workflow_source_commit=commit,
        workflow_source_directory=str(worker),
    )
    assert done.status == 0, done.output
    assert (worker / ".git").is_dir()
    assert key.read_text() not in (worker / ".git" / "config").read_text()
