"""How long an instance is looked at, and what ends it; what a stop does with each state of it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from instance_power_modules import ec2_instance_stop, instance_power_look

AWAY = EndpointConnectionError(endpoint_url="https://ec2.invalid")


def seen(state: str, round_on: str = "ours") -> dict[str, Any]:
    return {"state": {"name": state}, "tags": {"round": round_on}}


class Instance:
    """What each look finds, the last for ever; a clock that only sleeping moves."""

    def __init__(self, *looks: dict[str, Any] | Exception) -> None:
        self.looks, self.count, self.now = list(looks), 0, 100.0

    def look(self) -> dict[str, Any]:
        found = self.looks[min(self.count, len(self.looks) - 1)]
        self.count += 1
        if isinstance(found, Exception):
            raise found
        return found

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def wait(self, timeout: float = 20.0, rounds: tuple[str, ...] = ()) -> dict[str, Any]:
        states = ["stopped", "terminated"]
        return instance_power_look.wait(self.look, states, timeout, 5.0, rounds, self.sleep, lambda: self.now)


def test_a_wanted_state_ends_it_at_once() -> None:
    one = Instance(seen("stopping"), seen("stopped"), seen("pending"))
    assert one.wait() == seen("stopped")
    assert (one.count, one.now) == (2, 105.0)


def test_errors_of_the_api_are_one_more_reason_to_look() -> None:
    one = Instance(AWAY, AWAY, seen("stopped"))
    assert one.wait() == seen("stopped")


def test_the_last_look_is_when_the_time_is_over() -> None:
    one = Instance(seen("stopping"))
    assert one.wait(timeout=12) == seen("stopping")
    assert (one.count, one.now) == (4, 112.0)


def test_an_error_of_the_last_look_is_told() -> None:
    with pytest.raises(EndpointConnectionError):
        Instance(seen("stopping"), AWAY).wait()


@pytest.mark.parametrize("state", ["pending", "running"])
def test_an_instance_that_is_on_for_another_round_is_waited_for_no_longer(state: str) -> None:
    one = Instance(seen("running"), seen("stopping", "theirs"), seen(state, "theirs"))
    assert one.wait(rounds=("ours", "earlier")) == seen(state, "theirs")
    assert one.count == 3


def refusal(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": ""}}, "StopInstances")


class Stopped:
    """Stop an instance of which each look finds something; keep what was asked for, in order."""

    def __init__(self, *looks: dict[str, Any], error: Exception | None = None) -> None:
        self.looks, self.error = list(looks), error
        self.done: list[str] = []

    def look(self) -> dict[str, Any]:
        self.done.append("look")
        return self.looks.pop(0)

    def ask(self) -> None:
        self.done.append("ask")
        if self.error:
            raise self.error

    def settle(self, states: Collection[str], stopping: bool) -> dict[str, Any]:
        self.done.append("wait for the stop" if stopping else "wait for the start")
        return self.looks.pop(0)

    def stop(self) -> tuple[bool, dict[str, Any]]:
        return ec2_instance_stop.stop(self.look, self.ask, self.settle, ["ours", "earlier"])


@pytest.mark.parametrize(
    ("looks", "done"),
    [
        (["running", "stopped"], ["look", "ask", "wait for the stop"]),
        (["stopping", "stopped"], ["look", "wait for the stop"]),
        (["stopped"], ["look"]),
        (["pending", "running", "stopped"], ["look", "wait for the start", "ask", "wait for the stop"]),
        (["pending", "stopped"], ["look", "wait for the start"]),
        (["pending", "pending"], ["look", "wait for the start"]),
    ],
)
def test_ec2_is_asked_to_stop_what_runs_and_nothing_else(looks: list[str], done: list[str]) -> None:
    one = Stopped(*(seen(state) for state in looks))
    assert one.stop() == ("ask" in done, seen(looks[-1]))
    assert one.done == done


@pytest.mark.parametrize("state", ["pending", "running"])
def test_one_that_is_on_for_another_round_is_not_stopped(state: str) -> None:
    one = Stopped(seen(state, "theirs"))
    assert one.stop() == (False, seen(state, "theirs"))
    one = Stopped(seen("pending"), seen(state, "theirs"))
    assert one.stop() == (False, seen(state, "theirs"))
    assert "ask" not in one.done


def test_one_that_goes_off_at_the_moment_of_the_request_is_waited_for() -> None:
    one = Stopped(seen("running"), seen("stopped"), error=refusal("IncorrectInstanceState"))
    assert one.stop() == (False, seen("stopped"))


def test_a_refusal_to_stop_is_told_from_a_look_that_fails() -> None:
    error = refusal("UnauthorizedOperation")
    with pytest.raises(ec2_instance_stop.RefusedError) as refused:
        Stopped(seen("running"), error=error).stop()
    assert refused.value.__cause__ is error
