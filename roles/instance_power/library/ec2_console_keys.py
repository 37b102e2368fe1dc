"""Module: read an instance's SSH host keys from its console output, where cloud-init writes them."""

from __future__ import annotations

import re
from contextlib import suppress

from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule
from ansible_collections.amazon.aws.plugins.module_utils.retries import AWSRetry

with suppress(ImportError):  # AnsibleAWSModule says in words that it is missing
    from botocore.exceptions import BotoCoreError, ClientError

DOCUMENTATION = r"""
module: ec2_console_keys
short_description: Read an instance's SSH host keys from its console output
description:
  - Through the EC2 API, so whoever sits between the control node and the machine cannot forge them.
options:
  instance_id:
    description: Id of the instance.
    type: str
    required: true
extends_documentation_fragment:
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
"""

EXAMPLES = r"""
- name: Read the host keys
  ec2_console_keys:
    instance_id: i-0123456789abcdef0
  register: host_keys
"""

RETURN = r"""
keys:
  description: Type and key of each host key, without its comment; empty while the console does not show them.
  type: list
  elements: str
  returned: success
"""

BLOCK = re.compile(r"-----BEGIN SSH HOST KEY KEYS-----(.*?)-----END SSH HOST KEY KEYS-----", re.DOTALL)
KEY = re.compile(r"\b((?:ssh-(?:ed25519|rsa)|ecdsa-sha2-nistp\d+) [A-Za-z0-9+/]+=*)")


def host_keys(console: str) -> list[str]:
    """Return the keys of the last complete block: of the latest boot that showed them."""
    blocks = BLOCK.findall(console)
    return KEY.findall(blocks[-1]) if blocks else []


def main() -> None:
    """Ask once; waiting is the caller's affair."""
    module = AnsibleAWSModule(
        argument_spec={"instance_id": {"type": "str", "required": True}}, supports_check_mode=True
    )
    client = module.client("ec2", retry_decorator=AWSRetry.jittered_backoff())
    try:
        answer = client.get_console_output(aws_retry=True, InstanceId=module.params["instance_id"])
    except (BotoCoreError, ClientError) as error:
        module.fail_json_aws(error)
    module.exit_json(changed=False, keys=host_keys(answer.get("Output", "")))


if __name__ == "__main__":
    main()
