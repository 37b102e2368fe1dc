"""AWS has no capacity for an instance's type: another one is taken, and given back afterwards.

Against moto's own EC2, which runs in this process and is made to lack capacity.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.instances import InstanceBackend
from moto.server import ThreadedMotoServer
from role_support import Outcome, play

SCARCE = {"c5.xlarge", "c5.2xlarge"}


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    start = InstanceBackend.start_instances

    def refuse(self: InstanceBackend, instance_ids: list[str]) -> Any:
        kind = self.get_instance(instance_ids[0]).instance_type
        if kind in SCARCE:
            raise EC2ClientError("InsufficientInstanceCapacity", f"no {kind} in this zone")
        return start(self, instance_ids)

    monkeypatch.setattr(InstanceBackend, "start_instances", refuse)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def test_a_fallback_type_is_taken_and_given_back(tmp_path: Path, url: str) -> None:
    ec2 = boto3.client(
        "ec2",
        endpoint_url=url,
        region_name="eu-west-1",
        aws_access_key_id="any",
        aws_secret_access_key="any",
        config=Config(proxies={"http": ""}),
    )
    image = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    made = ec2.run_instances(
        ImageId=image,
        MinCount=1,
        MaxCount=1,
        InstanceType="c5.xlarge",
        InstanceInitiatedShutdownBehavior="stop",
    )
    instance = made["Instances"][0]["InstanceId"]
    ec2.stop_instances(InstanceIds=[instance])

    def power(state: str, **more: object) -> Outcome:
        return play(
            "instance_power",
            tmp_path,
            ("instance_power_claimed",),
            {"AWS_MAX_ATTEMPTS": "1"},
            instance_power_instance_id=instance,
            instance_power_state=state,
            instance_power_region="eu-west-1",
            instance_power_endpoint_url=url,
            instance_power_access_key="any",
            instance_power_secret_key="any",
            instance_power_poll_seconds=0.2,
            instance_power_capacity_attempts=1,
            instance_power_round_tags={"round": "20261122T180000Z-0123456"},
            **more,
        )

    def now() -> tuple[str, str, str]:
        found = ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
        tags = {tag["Key"]: tag["Value"] for tag in found["Tags"]}
        return found["State"]["Name"], found["InstanceType"], tags.get("round_original_type", "")

    refused = power("running", instance_power_fallback_types=["c5.2xlarge"])
    assert "cannot be started" in refused.output
    assert "as c5.xlarge, c5.2xlarge" in " ".join(refused.output.split())
    assert now() == ("stopped", "c5.2xlarge", "c5.xlarge"), "the control node was lost at this moment"

    started = power("running", instance_power_fallback_types=["c5.2xlarge", "m5.xlarge"])
    assert started.status == 0, started.output
    assert started.facts["instance_power_claimed"] is True
    assert now() == ("running", "m5.xlarge", "c5.xlarge")

    stopped = power("stopped")
    assert stopped.status == 0, stopped.output
    assert now() == ("stopped", "c5.xlarge", "")
