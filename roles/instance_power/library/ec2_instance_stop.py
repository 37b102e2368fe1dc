"""Module: stop an instance and look at it until it is stopped, unless it is another round's by now."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any

from ansible.module_utils.instance_power_look import ON, is_theirs, looker, wait
from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule
from ansible_collections.amazon.aws.plugins.module_utils.retries import AWSRetry

with suppress(ImportError):  # AnsibleAWSModule says in words that it is missing
    from botocore.exceptions import BotoCoreError, ClientError

DOCUMENTATION = r"""
module: ec2_instance_stop
short_description: Stop an instance and wait until it is stopped, unless it is another round's by now
description:
  - One process looks, asks and waits; three modules would be three.
  - amazon.aws.ec2_instance takes an instance for a failure that is pending, or goes off at the same moment.
options:
  instance_id:
    description: Id of the instance.
    type: str
    required: true
  rounds:
    description:
      - The rounds for which it may be on. If any are given, one whose tag C(round) is another is left alone.
    type: list
    elements: str
    default: []
  start_timeout:
    description: Seconds for which one that is pending is waited for, which cannot be stopped yet.
    type: float
    required: true
  stop_timeout:
    description: Seconds after which there is one last look.
    type: float
    required: true
  poll_seconds:
    description: Seconds between two looks.
    type: float
    default: 5
extends_documentation_fragment:
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
"""

EXAMPLES = r"""
- name: Stop it
  ec2_instance_stop:
    instance_id: i-0123456789abcdef0
    start_timeout: 300
    stop_timeout: 600
  register: seen
"""

RETURN = r"""
instances:
  description: The instance as it was seen last, in the words of amazon.aws.ec2_instance_info.
  type: list
  elements: dict
  returned: success
asking:
  description: Whether it was the request to stop that failed, and not a look.
  type: bool
  returned: failure
"""

OFF = ("stopped", "terminated")
SETTLED = ("running", "stopping", "shutting-down", *OFF)


class RefusedError(Exception):
    """EC2 does not stop it."""


def stop(
    look: Callable[[], dict[str, Any]],
    ask: Callable[[], Any],
    settle: Callable[[Collection[str], bool], dict[str, Any]],
    rounds: Collection[str],
) -> tuple[bool, dict[str, Any]]:
    """Stop it and wait; return whether EC2 was asked to, and the last look.

    Parameters
    ----------
    look, ask : callable
        Read the instance; ask EC2 to stop it.
    settle : callable
        Waits until it is in one of some states; for a stop, if the second word is true.
    rounds : collection of str
        The rounds for which it may be on.

    Raises
    ------
    RefusedError
        From the error with which EC2 refused to stop it.
    BotoCoreError, ClientError
        It cannot be read.
    """
    found = look()
    if found["state"]["name"] == "pending" and not is_theirs(found, rounds):
        found = settle(SETTLED, False)
    if found["state"]["name"] in ("pending", *OFF) or is_theirs(found, rounds):
        return False, found
    asked = found["state"]["name"] == "running"
    if asked:
        try:
            ask()
        except (BotoCoreError, ClientError) as error:
            if not _goes_off_by_itself(error):
                raise RefusedError from error
            asked = False
    return asked, settle(OFF, True)


def _goes_off_by_itself(error: Exception) -> bool:
    return isinstance(error, ClientError) and error.response["Error"]["Code"] == "IncorrectInstanceState"


def main() -> None:
    """Stop it, and return what was seen last."""
    module = AnsibleAWSModule(
        argument_spec={
            "instance_id": {"type": "str", "required": True},
            "rounds": {"type": "list", "elements": "str", "default": []},
            "start_timeout": {"type": "float", "required": True},
            "stop_timeout": {"type": "float", "required": True},
            "poll_seconds": {"type": "float", "default": 5},
        },
        supports_check_mode=True,
    )
    given = module.params
    client = module.client("ec2", retry_decorator=AWSRetry.jittered_backoff())
    look = looker(client, given["instance_id"])

    def settle(states: Collection[str], stopping: bool) -> dict[str, Any]:
        timeout = given["stop_timeout" if stopping else "start_timeout"]
        return wait(look, states, timeout, given["poll_seconds"], given["rounds"])

    def ask() -> None:
        client.stop_instances(aws_retry=True, InstanceIds=[given["instance_id"]])

    try:
        if module.check_mode:
            found = look()
            asked = found["state"]["name"] in ON and not is_theirs(found, given["rounds"])
        else:
            asked, found = stop(look, ask, settle, given["rounds"])
    except RefusedError as refused:
        module.fail_json_aws(refused.__cause__, asking=True)
    except (BotoCoreError, ClientError) as error:
        module.fail_json_aws(error, asking=False)
    module.exit_json(changed=asked, instances=[found])


if __name__ == "__main__":
    main()
