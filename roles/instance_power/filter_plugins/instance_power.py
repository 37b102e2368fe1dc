"""Filters: which round is on an instance, and what a sweep thinks of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

DEADLINE = "round_deadline"
STARTED = "round_started"
HOLD = "round_hold_until"

SLACK = timedelta(seconds=30)
"""An instance's launch time may be later than EC2's answer to the start, which its tags have, by less."""


def moment(text: str) -> datetime | None:
    """Read a moment as ISO 8601, UTC unless it says otherwise; None if it is none."""
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def judge(instance: dict[str, Any], now: datetime, hours: float) -> dict[str, str]:
    """Say of one instance whether it is healthy, held or overdue, and why.

    Parameters
    ----------
    instance : dict
        As `ec2_rounds_info` returns it.
    now : datetime
        The present, by the API's clock: that by which it was launched.
    hours : float
        How long an instance may run whose tags name no deadline of this start.
    """
    tags = instance.get("tags") or {}
    launched = moment(str(instance["launch_time"])) or datetime.min.replace(tzinfo=UTC)
    deadline = moment(tags.get(DEADLINE, ""))
    if deadline is None or deadline <= launched or _is_of_earlier_start(tags, launched):
        deadline = launched + timedelta(hours=hours)
        why = f"runs since {_shown(launched)} without a deadline of its own, which allows {hours:g} h"
    else:
        why = f"deadline {_shown(deadline)}"
    owner = tags.get("round_owner", "somebody unknown")
    why += f", round {tags['round']} of {owner}" if "round" in tags else ", of no round"
    verdict = "overdue" if now >= deadline else "healthy"
    if HOLD in tags:
        hold = moment(tags[HOLD])
        if hold is None:
            why += f"; its tag {HOLD} is '{tags[HOLD]}', which is no moment: give 2026-01-31T18:00:00Z"
        elif now < hold:
            verdict = "held" if verdict == "overdue" else verdict
            why += f"; held until {_shown(hold)}"
        else:
            why += f"; its hold ended {_shown(hold)}"
    name = str(instance["instance_id"])
    return {"id": name, "start": f"{name} {_shown(launched)}", "verdict": verdict, "why": why}


def instance_power_judged(instances: list[dict[str, Any]], now: float, hours: float) -> list[dict[str, str]]:
    """Judge all instances; `now` in seconds since 1970."""
    moment_now = datetime.fromtimestamp(float(now), UTC)
    return [judge(instance, moment_now, float(hours)) for instance in instances]


def instance_power_round_on(instance: dict[str, Any]) -> str:
    """Name the round that is on an instance; nothing if its tags are of an earlier start, or it has none."""
    tags = instance.get("tags") or {}
    launched = moment(str(instance["launch_time"]))
    if launched and _is_of_earlier_start(tags, launched):
        return ""
    return str(tags.get("round", ""))


def _is_of_earlier_start(tags: dict[str, str], launched: datetime) -> bool:
    started = moment(tags.get(STARTED, ""))
    return started is not None and started < launched - SLACK


def _shown(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class FilterModule:
    """What Ansible asks for."""

    def filters(self) -> dict[str, Any]:
        """Name the filters."""
        return {
            "instance_power_judged": instance_power_judged,
            "instance_power_round_on": instance_power_round_on,
        }
