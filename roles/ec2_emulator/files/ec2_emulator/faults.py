"""What is to go wrong, for tests: `faults.json`, a list of faults that are used up one by one."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

MACHINE = ("no_ssh", "slow_boot", "no_network", "full_disk", "hang_in_stopping")
"""Faults of machines; all others are errors of the API."""


class Faults:
    """The faults in a file, which may come, go and change at any time.

    Parameters
    ----------
    file : Path
        A JSON list; there need be no such file. `{"action", "access_key", "code", "message", "times"}`: the
        next `times` requests for that action with that access key (either may be left out) are refused with
        that code. `{"machine", "instance", "times", ...}`: that happens to that instance (any, if left out)
        on its next `times` occasions.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.one_at_a_time = threading.Lock()

    def of_request(self, action: str, access_key: str) -> dict[str, Any] | None:
        """Take the next fault that was ordered for such a request."""
        return self._take("code", {"action": action, "access_key": access_key})

    def of_machine(self, kind: str, instance_id: str) -> dict[str, Any] | None:
        """Take the next fault of this kind that was ordered for this instance."""
        return self._take("machine", {"machine": kind, "instance": instance_id})

    def _take(self, needed: str, wanted: dict[str, str]) -> dict[str, Any] | None:
        with self.one_at_a_time:
            try:
                faults = json.loads(self.file.read_text())
            except FileNotFoundError:
                return None
            for fault in faults:
                fits = all(fault.get(key, own) == own for key, own in wanted.items())
                if needed in fault and fault.get("times", 1) > 0 and fits:
                    fault["times"] = fault.get("times", 1) - 1
                    fresh = self.file.with_suffix(".new")
                    fresh.write_text(json.dumps(faults))
                    fresh.replace(self.file)
                    return dict(fault)
            return None
