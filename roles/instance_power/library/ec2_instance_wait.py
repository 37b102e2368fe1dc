"""Module: look at an instance until it is in one of some states."""

from __future__ import annotations

from contextlib import suppress

from ansible.module_utils.instance_power_look import looker, wait
from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule
from ansible_collections.amazon.aws.plugins.module_utils.retries import AWSRetry

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


def main() -> None:
    """Wait, and return what was seen last."""
    module = AnsibleAWSModule(
        argument_spec={
            "instance_id": {"type": "str", "required": True},
            "states": {"type": "list", "elements": "str", "required": True},
            "timeout": {"type": "float", "required": True},
            "poll_seconds": {"type": "float", "default": 5},
        },
        supports_check_mode=True,
    )
    given = module.params
    look = looker(module.client("ec2", retry_decorator=AWSRetry.jittered_backoff()), given["instance_id"])
    try:
        found = wait(look, given["states"], given["timeout"], given["poll_seconds"])
    except (BotoCoreError, ClientError) as error:
        module.fail_json_aws(error)
    module.exit_json(changed=False, instances=[found])


if __name__ == "__main__":
    main()
