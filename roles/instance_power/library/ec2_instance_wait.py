"""Module: look at an instance until it is in one of some states."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any

from ansible.module_utils.common.dict_transformations import camel_dict_to_snake_dict
from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule
from ansible_collections.amazon.aws.plugins.module_utils.retries import AWSRetry
from ansible_collections.amazon.aws.plugins.module_utils.tagging import boto3_tag_list_to_ansible_dict

with suppress(ImportError):  # AnsibleAWSModule says in words that it is missing
    from botocore.exceptions import BotoCoreError, ClientError

DOCUMENTATION = r"""
module: ec2_instance_wait
short_description: Look at an instance until it is in one of some states, or the time is over
description:
  - One process for all looks; amazon.aws.ec2_instance_info, which Ansible tries again, would be one for each.
  - An error of the API is one more reason to look again; if the last look fails so does the module.
options:
  instance_id:
    description: Id of the instance.
    type: str
    required: true
  states:
    description: The states that end the waiting.
    type: list
    elements: str
    required: true
  timeout:
    description: Seconds after which there is one last look.
    type: float
    required: true
  poll_seconds:
    description: Seconds between two looks.
    type: float
    default: 5
  rounds:
    description:
      - If any are given, a tag C(round) with another value than these ends the waiting too, unless the
        instance is off.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
"""

EXAMPLES = r"""
- name: Wait until it is off
  ec2_instance_wait:
    instance_id: i-0123456789abcdef0
    states: [stopped, terminated]
    timeout: 600
  register: seen
"""

RETURN = r"""
instances:
  description: The instance as it was seen last, in the words of amazon.aws.ec2_instance_info.
  type: list
  elements: dict
  returned: success
"""

ON = ("pending", "running")


def wait(
    look: Callable[[], dict[str, Any]],
    states: Collection[str],
    rounds: Collection[str],
    timeout: float,
    pause: float,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
    """Look until it is in one of the states, or on for a round that is none of these; return the last look.

    Raises
    ------
    BotoCoreError, ClientError
        The error of the last look.
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
            state, round_on = found["state"]["name"], found["tags"].get("round", "")
            if last or state in states or (rounds and state in ON and round_on not in rounds):
                return found
        sleep(max(0.05, min(pause, end - clock())))


def main() -> None:
    """Wait, and return what was seen last."""
    module = AnsibleAWSModule(
        argument_spec={
            "instance_id": {"type": "str", "required": True},
            "states": {"type": "list", "elements": "str", "required": True},
            "timeout": {"type": "float", "required": True},
            "poll_seconds": {"type": "float", "default": 5},
            "rounds": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    client = module.client("ec2", retry_decorator=AWSRetry.jittered_backoff())

    def look() -> dict[str, Any]:
        answer = client.describe_instances(aws_retry=True, InstanceIds=[module.params["instance_id"]])
        found = answer["Reservations"][0]["Instances"][0]
        tags = boto3_tag_list_to_ansible_dict(found.pop("Tags", []))
        return camel_dict_to_snake_dict(found) | {"tags": tags}

    given = module.params
    try:
        found = wait(look, given["states"], given["rounds"], given["timeout"], given["poll_seconds"])
    except (BotoCoreError, ClientError) as error:
        module.fail_json_aws(error)
    module.exit_json(changed=False, instances=[found])


if __name__ == "__main__":
    main()
