"""Module: find the instances that run and are of rounds, and what time it is."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule

with suppress(ImportError):  # AnsibleAWSModule says in words that it is missing
    from botocore.exceptions import BotoCoreError, ClientError

DOCUMENTATION = r"""
module: ec2_rounds_info
short_description: Find the instances that run and are of rounds, and what time it is
description:
  - Those that carry a tag of a round, and those that are named. The time is the API's, since a computer's own
    clock may be wrong.
options:
  instance_ids:
    description: Instances that are of rounds even without such a tag; one that does not exist is left out.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
"""

EXAMPLES = r"""
- name: Find them
  ec2_rounds_info:
    instance_ids: [i-0123456789abcdef0]
  register: found
"""

RETURN = r"""
instances:
  description: Of each its C(instance_id), C(launch_time) and C(tags).
  type: list
  elements: dict
  returned: success
now:
  description: Seconds since 1970 by the API's clock, or by ours if it does not say.
  type: float
  returned: success
"""

TAGS = ["round", "round_deadline"]
ON = ["pending", "running"]


def find(client: Any, instance_ids: list[str]) -> dict[str, Any]:
    """Ask for both kinds."""
    wanted = [{"Name": "tag-key", "Values": TAGS}]
    wanted += [{"Name": "instance-id", "Values": instance_ids}] if instance_ids else []
    found: dict[str, dict[str, Any]] = {}
    now = datetime.now(UTC)
    for one in wanted:
        filters = [one, {"Name": "instance-state-name", "Values": ON}]
        for page in client.get_paginator("describe_instances").paginate(Filters=filters):
            with suppress(ValueError):
                now = parsedate_to_datetime(page["ResponseMetadata"]["HTTPHeaders"].get("date", ""))
            for reservation in page["Reservations"]:
                found |= {instance["InstanceId"]: instance for instance in reservation["Instances"]}
    instances = [
        {
            "instance_id": name,
            "launch_time": instance["LaunchTime"].isoformat(),
            "tags": {tag["Key"]: tag["Value"] for tag in instance.get("Tags", [])},
        }
        for name, instance in sorted(found.items())
    ]
    return {"instances": instances, "now": now.timestamp()}


def main() -> None:
    """Ask once; the caller judges."""
    module = AnsibleAWSModule(
        argument_spec={"instance_ids": {"type": "list", "elements": "str", "default": []}},
        supports_check_mode=True,
    )
    try:
        found = find(module.client("ec2"), module.params["instance_ids"])
    except (BotoCoreError, ClientError) as error:
        module.fail_json_aws(error)
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
