"""How long an instance is looked at, and what ends it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

sys.path.insert(0, str(Path(__file__).parents[2] / "roles" / "instance_power" / "library"))
from ec2_instance_wait import wait

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
        return wait(self.look, ["stopped", "terminated"], rounds, timeout, 5.0, self.sleep, lambda: self.now)


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
