"""Module: start an instance for a round, or take one that is on, and tag it if it is no other round's."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from ansible.module_utils.instance_power_look import BEHAVIOR, find, looker, wait
from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule
from ansible_collections.amazon.aws.plugins.module_utils.retries import AWSRetry

with suppress(ImportError):  # AnsibleAWSModule says in words that it is missing
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

DOCUMENTATION = r"""
module: ec2_instance_claim
short_description: Start a stopped instance, or take one that is on, and tag it if it is nobody else's
description:
  - With O(filters) it looks first, and asks for nothing unless exactly one instance matches that is stopped,
    stays when it powers itself off, and has its own type.
  - Of several who ask at the same moment EC2 tells one that the instance was stopped before. That one has
    started it, and is the only one to write its tags, at once.
  - If EC2's answer is lost, or the instance was on already, it belongs to whose tags are on it some seconds
    later.
  - amazon.aws.ec2_instance tags first, and takes an instance that somebody else starts meanwhile for its own.
options:
  instance_id:
    description: Id of the instance.
    type: str
  filters:
    description: What selects the instance, as amazon.aws.ec2_instance_info takes it.
    type: dict
  tags:
    description: Tags to set; with any of them also C(round_started), the present by the API's clock.
    type: dict
    default: {}
  hours:
    description: Hours until the tag C(round_deadline), by the API's clock; 0 is none.
    type: float
    default: 0
  before:
    description: Value of the tag C(round) as it was read before; with O(filters) it is read.
    type: str
    default: ""
  start:
    description: Whether it is started; otherwise it is on already, and no round's.
    type: bool
    default: true
  states:
    description: If any are given, an instance that is the caller's is looked at until it is in one of these.
    type: list
    elements: str
    default: []
  timeout:
    description: Seconds after which there is one last look.
    type: float
    default: 300
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
- name: Start it
  ec2_instance_claim:
    instance_id: i-0123456789abcdef0
    tags: {round: 20261122T180000Z-0123456}
    hours: 12
  register: answer
"""

RETURN = r"""
asked:
  description: Whether EC2 was asked to start or to tag anything.
  type: bool
  returned: unless no client for EC2 could be made
claimed:
  description: Whether the instance is the caller's. When the module fails, whether it may be.
  type: bool
  returned: always
previous:
  description: State of the instance before it was asked to start; empty if that is not known.
  type: str
  returned: success
before:
  description: Value of the tag C(round) as the look found it.
  type: str
  returned: if O(filters) are given and were read
waited:
  description: Whether it was looked at until it was in one of O(states), or the time was over.
  type: bool
  returned: success
instances:
  description:
    - The instance, or all that match O(filters), as they were seen last, in the words of
      amazon.aws.ec2_instance_info. A look that fails after the claim takes nothing from it.
  type: list
  elements: dict
  returned: if something was seen
started:
  description: Whether the failure came after the start.
  type: bool
  returned: failure
"""

PAUSE = 3.0
"""Seconds in which whoever has started an instance has tagged it, and EC2 shows the tags to all."""

OWN_TYPE = "round_original_type"
"""Tag of one that was given another type, for which AWS had capacity: it has to get its own back first."""

ATTEMPTS = 6
THROTTLED = {"RequestLimitExceeded", "Throttling", "ThrottlingException"}
CERTAIN = {"InsufficientInstanceCapacity", "InsufficientHostCapacity"} | THROTTLED
"""Errors that EC2 words as its own, by their HTTP status, and after which nothing was started."""


class ClaimError(Exception):
    """The API's error; whether the instance may be ours nevertheless, and whether it was started before."""

    def __init__(self, error: Exception, claimed: bool, started: bool = False) -> None:
        super().__init__(str(error))
        self.error, self.claimed, self.started = error, claimed, started


@dataclass
class Claim:
    """One attempt to have an instance.

    Parameters
    ----------
    once : client
        Sends a request once, so that an error is about that request.
    patient : client
        Sends it again if need be.
    instance, tags, hours, before
        As the module's options.
    sleep : callable
        Lets some seconds pass.
    """

    once: Any
    patient: Any
    instance: str
    tags: dict[str, str]
    hours: float = 0.0
    before: str = ""
    sleep: Callable[[float], None] = time.sleep

    def start(self) -> dict[str, Any]:
        """Start it; it is ours if it was stopped."""
        try:
            answer = self._asked()
        except (BotoCoreError, ClientError) as error:
            if _nothing_was_started(error):
                raise ClaimError(error, claimed=False) from error
            return self._decided_by_tags(error)
        previous = answer["StartingInstances"][0]["PreviousState"]["Name"]
        if previous == "stopped":
            self._tag(api_time(answer))
        return {"claimed": previous == "stopped", "previous": previous}

    def take(self) -> dict[str, Any]:
        """Take one that is on, and on which no round was."""
        return self._decided_by_tags(None)

    def _asked(self) -> Any:
        for attempt in range(ATTEMPTS):
            try:
                return self.once.start_instances(InstanceIds=[self.instance])
            except ClientError as error:
                if error.response["Error"]["Code"] not in THROTTLED or attempt == ATTEMPTS - 1:
                    raise
            self.sleep(2.0**attempt)
        raise AssertionError("the last attempt returns or raises")

    def _decided_by_tags(self, error: Exception | None) -> dict[str, Any]:
        """Nobody can say who has started it, if anybody: it is whose tags are there in the end."""
        try:
            self.sleep(PAUSE)
            state, found, now = self._look()
            if error and state not in ("pending", "running"):
                raise ClaimError(error, claimed=True) from error
            own = self.tags.get("round", "")
            if state not in ("pending", "running") or found not in (self.before, own):
                return {"claimed": False, "previous": ""}
            self._tag(now)
            self.sleep(PAUSE)
            return {"claimed": self._look()[1] == own, "previous": ""}
        except (BotoCoreError, ClientError) as later:
            raise ClaimError(later, claimed=True) from error

    def _look(self) -> tuple[str, str, datetime]:
        """Read its state, whose round is on it, and what time it is."""
        answer = self.patient.describe_instances(aws_retry=True, InstanceIds=[self.instance])
        found = answer["Reservations"][0]["Instances"][0]
        tags = {tag["Key"]: tag["Value"] for tag in found.get("Tags", [])}
        return found["State"]["Name"], tags.get("round", ""), api_time(answer)

    def _tag(self, now: datetime) -> None:
        written = dict(self.tags)
        if written:
            written["round_started"] = f"{now:%Y-%m-%dT%H:%M:%SZ}"
        if self.hours > 0:
            written["round_deadline"] = f"{now + timedelta(hours=self.hours):%Y-%m-%dT%H:%M:%SZ}"
        tags = [{"Key": key, "Value": str(value)} for key, value in written.items()]
        if not tags:
            return
        try:
            self.patient.create_tags(aws_retry=True, Resources=[self.instance], Tags=tags)
        except (BotoCoreError, ClientError) as error:
            raise ClaimError(error, claimed=True, started=True) from error


def api_time(answer: dict[str, Any]) -> datetime:
    """Return the moment of an answer by the API's clock, or by ours if it does not say."""
    said = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", "")
    try:
        return parsedate_to_datetime(said).astimezone(UTC)
    except ValueError:
        return datetime.now(UTC)


def _nothing_was_started(error: Exception) -> bool:
    """Whether EC2 has refused, or was not even asked; otherwise maybe only the answer to a start is lost."""
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return error.response["Error"]["Code"] in CERTAIN or status < 500
    return not isinstance(error, HTTPClientError)


def can_be_started(seen: list[dict[str, Any]]) -> bool:
    """Whether this is one instance that is off, and that no reason is known not to start as it is."""
    if len(seen) != 1 or seen[0]["state"]["name"] != "stopped" or OWN_TYPE in seen[0]["tags"]:
        return False
    return bool(seen[0]["attributes"][BEHAVIOR]["value"] == "stop")


def main() -> None:
    """Start or take it, or say why not."""
    module = AnsibleAWSModule(
        argument_spec={
            "instance_id": {"type": "str"},
            "filters": {"type": "dict"},
            "tags": {"type": "dict", "default": {}},
            "hours": {"type": "float", "default": 0},
            "before": {"type": "str", "default": ""},
            "start": {"type": "bool", "default": True},
            "states": {"type": "list", "elements": "str", "default": []},
            "timeout": {"type": "float", "default": 300},
            "poll_seconds": {"type": "float", "default": 5},
        },
        required_one_of=[("instance_id", "filters")],
        mutually_exclusive=[("instance_id", "filters")],
        supports_check_mode=True,
    )
    given = module.params
    patient = module.client("ec2", retry_decorator=AWSRetry.jittered_backoff())
    told: dict[str, Any] = {"asked": True, "waited": False}
    if given["filters"]:
        try:
            seen = find(patient, given["filters"])
        except (BotoCoreError, ClientError) as error:
            module.fail_json_aws(error, asked=False, claimed=False)
        given["before"] = seen[0]["tags"].get("round", "") if len(seen) == 1 else ""
        told |= {"instances": seen, "before": given["before"]}
        if module.check_mode or not can_be_started(seen):
            module.exit_json(changed=False, claimed=False, **(told | {"asked": False}))
        given["instance_id"] = seen[0]["instance_id"]
    elif module.check_mode:
        module.exit_json(changed=True, claimed=False, previous="stopped", **(told | {"asked": False}))
    once = module.client("ec2", config=Config(retries={"mode": "standard", "total_max_attempts": 1}))
    claim = Claim(once, patient, *(given[name] for name in ("instance_id", "tags", "hours", "before")))
    try:
        found = claim.start() if given["start"] else claim.take()
    except ClaimError as failure:
        module.fail_json_aws(failure.error, claimed=failure.claimed, started=failure.started, **told)
    if given["states"] and found["claimed"]:
        look = looker(patient, given["instance_id"])
        told["waited"] = True
        with suppress(BotoCoreError, ClientError):
            told["instances"] = [wait(look, given["states"], given["timeout"], given["poll_seconds"])]
    module.exit_json(changed=found["claimed"], **found, **told)


if __name__ == "__main__":
    main()
