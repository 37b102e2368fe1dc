"""The role worker_fleet against moto's own EC2 and IAM: created once, destroyed only by name."""

from __future__ import annotations

import base64
import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from listening_api import listening_api
from moto_ec2 import moto_server
from role_support import ROOT, play

KEY = (
    "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQDusXfgTE4eBP50NglSzCSEGnIL6+cr6m3H6cZANOQ+P1o/W4BdtcAL3sor4iGi7SOe"
    "Jgo8kweyMQrhrt6HaKGgromRiz37LQx+4YIcf/LHQLkyKKHDo/i1nVbTVA9EuqQrZMZHkYJVQxtKbMBHyAIG9TNXgSwFMvGfGSNXGdmm"
    "5w== anna"
)
NAME = "datajoint-round-lab"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with moto_server() as url:
        yield url


def client(url: str, service: str) -> Any:
    return boto3.client(
        service,
        endpoint_url=url,
        region_name="eu-west-1",
        aws_access_key_id="any",
        aws_secret_access_key="any",
        config=Config(proxies={"http": ""}),
    )


def inputs(url: str, **more: object) -> dict[str, Any]:
    ec2 = client(url, "ec2")
    return {
        "worker_fleet_name": "lab",
        "worker_fleet_region": "eu-west-1",
        "worker_fleet_endpoint_url": url,
        "worker_fleet_access_key": "any",
        "worker_fleet_secret_key": "any",
        "worker_fleet_image": ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"],
        "worker_fleet_public_key": KEY,
        "worker_fleet_ssh_from": ["192.0.2.0/24"],
        "worker_fleet_workers": [
            {"name": "cpu1", "type": "c5.xlarge"},
            {"name": "memory1", "type": "r5.xlarge"},
        ],
        "worker_fleet_elastic_ips": True,
        "worker_fleet_hours": 2,
        "worker_fleet_principals": ["arn:aws:iam::123456789012:user/anna"],
        "worker_fleet_github": "lab/round",
        **more,
    }


def alive(url: str) -> list[dict[str, Any]]:
    states = [{"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]}]
    found = client(url, "ec2").describe_instances(Filters=states)["Reservations"]
    return [instance for one in found for instance in one["Instances"]]


def tags(instance: dict[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in instance["Tags"]}


def run(folder: Path, url: str, entry: str = "main", **more: object) -> Any:
    return play(
        "worker_fleet",
        folder,
        ("worker_fleet_ids", "worker_fleet_new"),
        {"NO_PROXY": "*", "no_proxy": "*"},
        entry,
        **inputs(url, **more),
    )


def look_at_a_new_one(ec2: Any, one: dict[str, Any]) -> None:
    """It stops when it powers itself off, lets us in, and has a deadline, on itself and for a sweep."""
    asked = ec2.describe_instance_attribute(
        InstanceId=one["InstanceId"], Attribute="instanceInitiatedShutdownBehavior"
    )
    assert asked["InstanceInitiatedShutdownBehavior"]["Value"] == "stop"
    assert one["KeyName"] == NAME
    deadline = datetime.fromisoformat(tags(one)["round_deadline"])
    assert timedelta(hours=1.9) < deadline - datetime.now(UTC) < timedelta(hours=2)
    told = ec2.describe_instance_attribute(InstanceId=one["InstanceId"], Attribute="userData")["UserData"][
        "Value"
    ]
    assert "--on-active=7200, systemctl, poweroff" in base64.b64decode(told).decode()
    assert [group["GroupName"] for group in one["SecurityGroups"]] == [NAME]


def playbook(name: str, url: str, answer: str = "", **more: object) -> str:
    """Run a playbook as somebody at a terminal, who answers what is asked."""
    terminal, theirs = pty.openpty()
    try:
        os.write(terminal, f"{answer}\n".encode())
        done = subprocess.run(
            [
                f"{sys.prefix}/bin/ansible-playbook",
                f"playbooks/{name}.yml",
                *("--inventory", "localhost,", "--extra-vars"),
                json.dumps({"ansible_python_interpreter": sys.executable, **inputs(url, **more)}),
            ],
            cwd=ROOT,
            env=os.environ | {"NO_PROXY": "*", "no_proxy": "*", "ANSIBLE_NOCOLOR": "1"},
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
    finally:
        os.close(theirs)
        os.close(terminal)
    return f"{done.returncode}: {' '.join(done.stdout.split())}"


@pytest.mark.parametrize("token", ["of an hour", ""])
def test_temporary_credentials_are_given_whole(tmp_path: Path, token: str) -> None:
    """The environment's token, which belongs to other keys, is not mixed in."""
    given = {
        "worker_fleet_name": "lab",
        "worker_fleet_confirm": "lab",
        "worker_fleet_region": "eu-west-1",
        "worker_fleet_access_key": "any",
        "worker_fleet_secret_key": "any",
        "worker_fleet_session_token": token,
    }
    environment = {"NO_PROXY": "*", "AWS_SESSION_TOKEN": "of somebody else", "AWS_MAX_ATTEMPTS": "1"}
    with listening_api() as (url, asked):
        done = play(
            "worker_fleet", tmp_path, (), environment, "destroy", worker_fleet_endpoint_url=url, **given
        )
    assert done.status == 2, done.output
    assert (asked[0]["X-Amz-Security-Token"] or "") == token


def test_a_fleet_is_created_once_and_destroyed_by_name(tmp_path: Path, url: str) -> None:
    for given, words in (
        ({"worker_fleet_name": "no/name"}, "use letters, digits and hyphens"),
        ({"worker_fleet_ssh_from": ["0.0.0.0/0"]}, "lets the whole world in"),
        ({"worker_fleet_workers": [{"name": "a"}]}, "a name of its own and a type"),
        ({"worker_fleet_hours": 0}, "give a number of hours above 0"),
        ({"worker_fleet_github": "lab/round:*"}, "give the repository as owner/name"),
    ):
        assert words in run(tmp_path, url, **given).refusal()
    assert alive(url) == []

    made = run(tmp_path, url)
    assert made.status == 0, made.output
    assert made.changed >= 5
    ec2, iam = client(url, "ec2"), client(url, "iam")
    instances = {one["InstanceId"]: one for one in alive(url)}
    assert made.facts["worker_fleet_new"] == ["cpu1", "memory1"]
    assert sorted(made.facts["worker_fleet_ids"]) == ["cpu1", "memory1"]
    assert set(made.facts["worker_fleet_ids"].values()) == set(instances)
    for one in instances.values():
        look_at_a_new_one(ec2, one)
    [group] = ec2.describe_security_groups(Filters=[{"Name": "group-name", "Values": [NAME]}])[
        "SecurityGroups"
    ]
    [rule] = group["IpPermissions"]
    assert (rule["FromPort"], [one["CidrIp"] for one in rule["IpRanges"]]) == (22, ["192.0.2.0/24"])
    assert len(ec2.describe_addresses()["Addresses"]) == 2
    [policy] = iam.list_attached_role_policies(RoleName=NAME)["AttachedPolicies"]
    version = iam.get_policy(PolicyArn=policy["PolicyArn"])["Policy"]["DefaultVersionId"]
    document = iam.get_policy_version(PolicyArn=policy["PolicyArn"], VersionId=version)
    actions = json.dumps(document["PolicyVersion"]["Document"])
    assert "ec2:StartInstances" in actions
    assert "RunInstances" not in actions
    assert "Terminate" not in actions

    role = iam.get_role(RoleName=NAME)["Role"]
    keys, github = role["AssumeRolePolicyDocument"]["Statement"]
    assert keys["Principal"] == {"AWS": ["arn:aws:iam::123456789012:user/anna"]}
    assert github["Action"] == "sts:AssumeRoleWithWebIdentity"
    subject = github["Condition"]["StringEquals"]["token.actions.githubusercontent.com:sub"]
    assert subject == "repo:lab/round:environment:workers"
    assert role["MaxSessionDuration"] == 21600

    ec2.create_tags(Resources=list(instances), Tags=[{"Key": "round", "Value": "one that runs"}])
    before = {name: tags(one) | {"round": "one that runs"} for name, one in instances.items()}
    again = playbook("create", url)
    assert again.startswith("0: "), again
    assert "changed=0 " in again, again
    assert f"cpu1: {{instance_power_instance_id: {made.facts['worker_fleet_ids']['cpu1']}}}" in again
    assert "on now, until" not in again, "nothing is new"
    assert {one["InstanceId"]: tags(one) for one in alive(url)} == before

    refused = playbook("destroy", url, "cpu1")
    assert refused.startswith("2: "), refused
    assert "the fleet is called 'lab' and 'cpu1' was given" in refused
    assert len(alive(url)) == 2

    gone = playbook("destroy", url, "lab")
    assert gone.startswith("0: "), gone
    assert alive(url) == []
    assert not ec2.describe_key_pairs()["KeyPairs"]
    assert not ec2.describe_addresses()["Addresses"]
    assert not ec2.describe_security_groups(Filters=[{"Name": "group-name", "Values": [NAME]}])[
        "SecurityGroups"
    ]
    assert not [role for role in iam.list_roles()["Roles"] if role["RoleName"] == NAME]
    assert not iam.list_policies(Scope="Local")["Policies"]
