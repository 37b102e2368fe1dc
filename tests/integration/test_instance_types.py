"""What EC2 does besides what it is asked: it has no capacity for an instance's type, or other tags than ours.

Against moto's own EC2, which runs in this process and is made to do so.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import EC2Backend
from moto.ec2.models.instances import InstanceBackend
from moto_ec2 import moto_server
from role_support import Outcome, play

SCARCE = {"c5.xlarge", "c5.2xlarge"}
ROUND = "20261122T180000Z-0123456"


class One:
    """A stopped instance, and the role that is applied to it."""

    def __init__(self, folder: Path, url: str, kind: str) -> None:
        self.folder, self.url = folder, url
        self.ec2: Any = boto3.client(
            "ec2",
            endpoint_url=url,
            region_name="eu-west-1",
            aws_access_key_id="any",
            aws_secret_access_key="any",
            config=Config(proxies={"http": ""}),
        )
        image = self.ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
        made = self.ec2.run_instances(
            ImageId=image,
            MinCount=1,
            MaxCount=1,
            InstanceType=kind,
            InstanceInitiatedShutdownBehavior="stop",
        )
        self.instance = made["Instances"][0]["InstanceId"]
        self.ec2.create_tags(Resources=[self.instance], Tags=[{"Key": "round", "Value": "old"}])
        self.ec2.stop_instances(InstanceIds=[self.instance])

    def power(self, state: str, **more: object) -> Outcome:
        return play(
            "instance_power",
            self.folder,
            ("instance_power_claimed",),
            {"AWS_MAX_ATTEMPTS": "1"},
            instance_power_instance_id=self.instance,
            instance_power_state=state,
            instance_power_region="eu-west-1",
            instance_power_endpoint_url=self.url,
            instance_power_access_key="any",
            instance_power_secret_key="any",
            instance_power_poll_seconds=0.2,
            instance_power_capacity_attempts=1,
            instance_power_round_tags={"round": ROUND},
            **more,
        )

    def now(self) -> tuple[str, str, dict[str, str]]:
        [found] = self.ec2.describe_instances(InstanceIds=[self.instance])["Reservations"][0]["Instances"]
        tags = {tag["Key"]: tag["Value"] for tag in found["Tags"]}
        return found["State"]["Name"], found["InstanceType"], tags


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    start = InstanceBackend.start_instances

    def refuse(self: InstanceBackend, instance_ids: list[str]) -> Any:
        kind = self.get_instance(instance_ids[0]).instance_type
        if kind in SCARCE:
            raise EC2ClientError("InsufficientInstanceCapacity", f"no {kind} in this zone")
        return start(self, instance_ids)

    monkeypatch.setattr(InstanceBackend, "start_instances", refuse)
    with moto_server() as url:
        yield url


def test_a_fallback_type_is_taken_and_given_back(tmp_path: Path, url: str) -> None:
    one = One(tmp_path, url, "c5.xlarge")

    def now() -> tuple[str, str, str]:
        state, kind, tags = one.now()
        return state, kind, tags.get("round_original_type", "")

    refused = one.power("running", instance_power_fallback_types=["c5.2xlarge"])
    assert "cannot be started" in refused.output
    assert "as c5.xlarge, c5.2xlarge" in " ".join(refused.output.split())
    assert now() == ("stopped", "c5.xlarge", "")

    # A control node that was lost after it had given another type.
    one.ec2.modify_instance_attribute(InstanceId=one.instance, InstanceType={"Value": "c5.2xlarge"})
    one.ec2.create_tags(Resources=[one.instance], Tags=[{"Key": "round_original_type", "Value": "c5.xlarge"}])
    started = one.power("running", instance_power_fallback_types=["c5.2xlarge", "m5.xlarge"])
    assert started.status == 0, started.output
    assert started.facts["instance_power_claimed"] is True
    assert now() == ("running", "m5.xlarge", "c5.xlarge")

    stopped = one.power("stopped")
    assert stopped.status == 0, stopped.output
    assert now() == ("stopped", "c5.xlarge", "")


@pytest.mark.parametrize("theirs", ["", "theirs"])
def test_an_instance_is_given_up_only_where_another_rounds_tags_are_on_it(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch, theirs: str
) -> None:
    """EC2 may go on showing those that were there before; that is no reason to leave a machine on."""
    one = One(tmp_path, url, "m5.xlarge")
    create = EC2Backend.create_tags

    def instead(self: EC2Backend, ids: list[str], tags: dict[str, str]) -> bool:
        return create(self, ids, tags | {"round": theirs}) if theirs else True

    monkeypatch.setattr(EC2Backend, "create_tags", instead)
    outcome = one.power("running")
    assert one.now()[2]["round"] == (theirs or "old")
    if theirs:
        assert f"{one.instance} was taken by another round at the same moment" in outcome.refusal()
        assert "it now belongs to round theirs of somebody unknown" in outcome.refusal()
    else:
        assert outcome.status == 0, outcome.output
        assert outcome.facts["instance_power_claimed"] is True
