"""The workers and their groups, as the inventory has them; no credential is needed to know them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from commands import RefusedError

ROOT = Path(__file__).resolve().parents[2]
INVENTORY = ROOT / "inventory" / "aws"
PLACE = "inventory/aws/hosts.yml"


@dataclass(frozen=True)
class Fleet:
    """Names of all workers, and of those in each group."""

    workers: list[str]
    groups: dict[str, list[str]]

    def resolve(self, names: list[str]) -> list[str]:
        """Put a group's workers in place of its name; one that is unknown here stays: secrets may know it."""
        found = []
        for name in names:
            if name in self.groups and name not in self.workers and not self.groups[name]:
                raise RefusedError(f"the group {name} has no worker: put one into it in {PLACE}")
            found += [name] if name in self.workers else self.groups.get(name, [name])
        return list(dict.fromkeys(found))


def of(listed: dict[str, Any]) -> Fleet:
    """Read what ansible-inventory lists: the hosts of `workers`, group by group."""

    def hosts(group: str) -> set[str]:
        one = listed.get(group, {})
        return set(one.get("hosts", [])).union(*(hosts(child) for child in one.get("children", [])))

    workers = hosts("workers")
    groups = {name for one in listed.values() for name in one.get("children", [])} - {"ungrouped"}
    return Fleet(sorted(workers), {name: sorted(hosts(name) & workers) for name in sorted(groups)})


def read() -> Fleet:
    """Ask Ansible, which reads inventories of every kind."""
    listed = subprocess.run(
        [ROOT / ".venv/bin/ansible-inventory", "-i", INVENTORY, "--list"],
        cwd=ROOT,
        env=os.environ | {"ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true"},
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        print(listed.stderr, file=sys.stderr)
        raise RefusedError(f"the inventory cannot be read: correct {PLACE} as the log of this step says")
    return of(json.loads(listed.stdout))
