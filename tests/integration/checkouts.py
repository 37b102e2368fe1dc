"""git, as somebody who commits."""

from __future__ import annotations

import subprocess
from pathlib import Path


def git(folder: Path, *words: str) -> str:
    """Run git in a folder; return what it printed."""
    identity = ["-c", "user.name=Tester", "-c", "user.email=tester@example.org"]
    return subprocess.run(
        ["git", *identity, "-C", folder, *words], check=True, capture_output=True, text=True
    ).stdout.strip()
