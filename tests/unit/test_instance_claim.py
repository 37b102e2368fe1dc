"""Whose an instance is when several start it at the same moment, or when nobody hears EC2's answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError
from instance_power_modules import ec2_instance_claim

Claim, ClaimError = ec2_instance_claim.Claim, ec2_instance_claim.ClaimError

NOW = "Sun, 22 Nov 2026 18:00:00 GMT"
OURS, THEIRS, OLD = {"round": "ours"}, {"round": "theirs"}, {"round": "old"}
SAID = {"ResponseMetadata": {"HTTPHeaders": {"date": NOW}}}
LOST = ReadTimeoutError(endpoint_url="https://ec2.invalid")


def refusal(code: str, status: int = 400) -> ClientError:
    answer = {"Error": {"Code": code, "Message": ""}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "StartInstances")  # type: ignore[arg-type]


class Cloud:
    """One instance; what goes wrong with each request; what others do while some seconds pass."""

    def __init__(
        self, state: str = "stopped", *errors: Exception, also: Callable[[Cloud], None] | None = None
    ):
        self.state, self.errors, self.also = state, list(errors), also
        self.tags = dict(OLD)
        self.untaggable: Exception | None = None
        self.slept: list[float] = []

    def start_instances(self, InstanceIds: list[str]) -> dict[str, Any]:
        error = self.errors.pop(0) if self.errors else None
        if error and error is not LOST:
            raise error
        previous, self.state = self.state, "pending" if self.state == "stopped" else self.state
        if error:
            raise error
        return {**SAID, "StartingInstances": [{"PreviousState": {"Name": previous}}]}

    def describe_instances(self, aws_retry: bool, InstanceIds: list[str]) -> dict[str, Any]:
        tags = [{"Key": key, "Value": value} for key, value in self.tags.items()]
        return {**SAID, "Reservations": [{"Instances": [{"State": {"Name": self.state}, "Tags": tags}]}]}

    def create_tags(self, aws_retry: bool, Resources: list[str], Tags: list[dict[str, str]]) -> None:
        if self.untaggable:
            raise self.untaggable
        self.tags |= {tag["Key"]: tag["Value"] for tag in Tags}

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if self.also:
            self.also(self)

    def claim(self, tags: dict[str, str] = OURS, hours: float = 1.5) -> Claim:
        return Claim(self, self, "i-1", tags, hours, "old", self.sleep)


def test_who_finds_it_stopped_has_started_it_and_tags_it_at_once() -> None:
    """By the API's clock: ours may be wrong."""
    cloud = Cloud()
    assert cloud.claim().start() == {"claimed": True, "previous": "stopped"}
    moments = {"round_started": "2026-11-22T18:00:00Z", "round_deadline": "2026-11-22T19:30:00Z"}
    assert cloud.tags == OURS | moments
    assert cloud.slept == []


@pytest.mark.parametrize("state", ["pending", "running"])
def test_who_comes_later_changes_nothing(state: str) -> None:
    cloud = Cloud(state)
    cloud.tags = dict(THEIRS)
    assert cloud.claim().start() == {"claimed": False, "previous": state}
    assert cloud.tags == THEIRS


def test_a_start_whose_answer_is_lost_is_ours_if_nobody_else_tags_it() -> None:
    cloud = Cloud("stopped", LOST)
    assert cloud.claim().start() == {"claimed": True, "previous": ""}
    assert cloud.tags["round"] == "ours"
    assert cloud.tags["round_deadline"] == "2026-11-22T19:30:00Z"


@pytest.mark.parametrize("moment", [1, 2])
def test_a_start_whose_answer_is_lost_is_whose_tags_are_there_in_the_end(moment: int) -> None:
    """Another round has started it, and its tags come before ours, or after them."""

    def others(cloud: Cloud) -> None:
        if len(cloud.slept) == moment:
            cloud.tags = dict(THEIRS)

    cloud = Cloud("pending", LOST, also=others)
    assert cloud.claim().start() == {"claimed": False, "previous": ""}
    assert cloud.tags == THEIRS


def test_one_that_is_on_is_taken_unless_another_round_does_so_or_it_goes_off() -> None:
    cloud = Cloud("running")
    assert cloud.claim().take() == {"claimed": True, "previous": ""}
    assert cloud.tags["round"] == "ours"
    assert cloud.tags["round_started"] == "2026-11-22T18:00:00Z"
    for state, tags in (("running", THEIRS), ("stopping", OLD)):
        cloud = Cloud(state)
        cloud.tags = dict(tags)
        assert cloud.claim().take() == {"claimed": False, "previous": ""}
        assert cloud.tags == tags


@pytest.mark.parametrize(
    ("error", "claimed", "state"),
    [
        (refusal("UnauthorizedOperation", 403), False, "stopped"),
        (refusal("InsufficientInstanceCapacity", 500), False, "stopped"),
        (EndpointConnectionError(endpoint_url="https://ec2.invalid"), False, "stopped"),
        (refusal("InternalError", 500), True, "stopped"),
    ],
)
def test_a_refusal_claims_nothing_and_an_unclear_end_may_have(
    error: Exception, claimed: bool, state: str
) -> None:
    cloud = Cloud("stopped", error)
    with pytest.raises(ClaimError) as failure:
        cloud.claim().start()
    assert (failure.value.error, failure.value.claimed, failure.value.started) == (error, claimed, False)
    assert (cloud.state, cloud.tags) == (state, OLD)


def test_one_that_is_ours_and_cannot_be_tagged_stays_ours() -> None:
    cloud = Cloud()
    cloud.untaggable = refusal("UnauthorizedOperation", 403)
    with pytest.raises(ClaimError) as failure:
        cloud.claim().start()
    assert (failure.value.claimed, failure.value.started) == (True, True)


def test_a_throttled_start_is_asked_for_again() -> None:
    throttled = refusal("RequestLimitExceeded", 503)
    cloud = Cloud("stopped", throttled, throttled)
    assert cloud.claim().start()["claimed"]
    assert cloud.slept == [1, 2]
    with pytest.raises(ClaimError, match="RequestLimitExceeded"):
        Cloud("stopped", *[throttled] * 9).claim().start()


def instance(state: str = "stopped", behavior: str = "stop", **tags: str) -> dict[str, Any]:
    attributes = {"instance_initiated_shutdown_behavior": {"value": behavior}}
    return {"state": {"name": state}, "tags": tags, "attributes": attributes}


@pytest.mark.parametrize(
    ("seen", "plain"),
    [
        ([instance(round="old")], True),
        ([instance(behavior="terminate")], False),
        ([instance(round_original_type="c5.xlarge")], False),
        ([], False),
        ([instance(), instance()], False),
        *(([instance(state)], False) for state in ("pending", "running", "stopping", "terminated")),
    ],
)
def test_only_what_is_plainly_off_is_started_at_the_first_look(
    seen: list[dict[str, Any]], plain: bool
) -> None:
    """One that would be destroyed when it powers itself off must not even be asked for."""
    assert ec2_instance_claim.can_be_started(seen) is plain


def test_without_tags_none_are_written() -> None:
    cloud = Cloud()
    assert cloud.claim({}, 0.0).start()["claimed"]
    assert cloud.tags == OLD
