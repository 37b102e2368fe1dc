"""Module: change the type of a stopped instance."""

from __future__ import annotations

from contextlib import suppress

from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule
from ansible_collections.amazon.aws.plugins.module_utils.retries import AWSRetry

with suppress(ImportError):  # AnsibleAWSModule says in words that it is missing
    from botocore.exceptions import BotoCoreError, ClientError

DOCUMENTATION = r"""
module: ec2_instance_type
short_description: Change the type of a stopped instance
description:
  - amazon.aws.ec2_instance ignores the type of an instance that exists.
options:
  instance_id:
    description: Id of the instance.
    type: str
    required: true
  instance_type:
    description: The type it is to have.
    type: str
    required: true
extends_documentation_fragment:
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
"""

EXAMPLES = r"""
- name: Take a larger one
  ec2_instance_type:
    instance_id: i-0123456789abcdef0
    instance_type: c7i.4xlarge
"""

RETURN = r"""
previous:
  description: The type it had.
  type: str
  returned: success
"""


def main() -> None:
    """Compare, change if they differ."""
    module = AnsibleAWSModule(
        argument_spec={
            "instance_id": {"type": "str", "required": True},
            "instance_type": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    name, wanted = module.params["instance_id"], module.params["instance_type"]
    client = module.client("ec2", retry_decorator=AWSRetry.jittered_backoff())
    try:
        found = client.describe_instances(aws_retry=True, InstanceIds=[name])
        previous = found["Reservations"][0]["Instances"][0]["InstanceType"]
        if previous != wanted and not module.check_mode:
            client.modify_instance_attribute(aws_retry=True, InstanceId=name, InstanceType={"Value": wanted})
    except (BotoCoreError, ClientError) as error:
        module.fail_json_aws(error)
    module.exit_json(changed=previous != wanted, previous=previous)


if __name__ == "__main__":
    main()
