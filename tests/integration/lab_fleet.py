"""The inventory of the lab's fleet, with the instances that it gives as examples."""

from __future__ import annotations

import re
from pathlib import Path


def lab_fleet(project: Path, folder: Path) -> Path:
    """Make it of a project's inventory, whose examples are behind a `#`."""
    of_the_lab, made = project / "inventory" / "aws", folder / "aws"
    made.mkdir()
    (made / "group_vars").symlink_to(of_the_lab / "group_vars")
    hosts, count = re.subn(r"# (\w+: {)", r"\1", (of_the_lab / "hosts.yml").read_text())
    assert count == 2
    (made / "hosts.yml").write_text(hosts)
    return made
