"""Look at an instance until it is in one of some states: what the modules of this role share."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any

from ansible.module_utils.common.dict_transformations import camel_dict_to_snake_dict
from ansible_collections.amazon.aws.plugins.module_utils.tagging import boto3_tag_list_to_ansible_dict
from ansible_collections.amazon.aws.plugins.module_utils.transformation import (
    ansible_dict_to_boto3_filter_list,
)

with suppress(ImportError):  # AnsibleAWSModule says in words that it is missing
    from botocore.exceptions import BotoCoreError, ClientError

ON = ("pending", "running")
BEHAVIOR = "instance_initiated_shutdown_behavior"


def find(client: Any, filters: dict[str, Any]) -> list[dict[str, Any]]:
    """Read all instances that match, as `looker` does; a single one with what it does when it powers off."""
    pages = client.get_paginator("describe_instances").paginate(
        Filters=ansible_dict_to_boto3_filter_list(filters)
    )
    found = [_told(one) for page in pages for some in page["Reservations"] for one in some["Instances"]]
    if len(found) == 1:
        answer = client.describe_instance_attribute(
            aws_retry=True,
            InstanceId=found[0]["instance_id"],
            Attribute="instanceInitiatedShutdownBehavior",
        )
        found[0]["attributes"] = {BEHAVIOR: {"value": answer["InstanceInitiatedShutdownBehavior"]["Value"]}}
    return found


def looker(client: Any, instance_id: str) -> Callable[[], dict[str, Any]]:
    """Return a function that reads the instance, in the words of amazon.aws.ec2_instance_info."""

    def look() -> dict[str, Any]:
        answer = client.describe_instances(aws_retry=True, InstanceIds=[instance_id])
        return _told(answer["Reservations"][0]["Instances"][0])

    return look


def _told(found: dict[str, Any]) -> dict[str, Any]:
    tags = boto3_tag_list_to_ansible_dict(found.pop("Tags", []))
    return camel_dict_to_snake_dict(found) | {"tags": tags}


def is_theirs(found: dict[str, Any], rounds: Collection[str]) -> bool:
    """Whether it is on for a round that is none of these; with none given it is nobody else's."""
    on = found["state"]["name"] in ON
    return bool(rounds) and on and found["tags"].get("round", "") not in rounds


def wait(
    look: Callable[[], dict[str, Any]],
    states: Collection[str],
    timeout: float,
    pause: float,
    rounds: Collection[str] = (),
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
    """Look until it is in one of the states, or on for a round that is none of these; return the last look.

    Raises
    ------
    BotoCoreError, ClientError
        The error of the last look; before it an error is one more reason to look again.
    """
    end = clock() + timeout
    while True:
        last = clock() >= end
        try:
            found = look()
        except (BotoCoreError, ClientError):
            if last:
                raise
        else:
            if last or found["state"]["name"] in states or is_theirs(found, rounds):
                return found
        sleep(max(0.05, min(pause, end - clock())))
