"""Refuse who is not on the list of those who may press the buttons. Runs before any credential is touched."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from commands import RefusedError, refuse

LIST = Path(__file__).resolve().parents[1] / "workflows" / "start_process_allow_list"


def names(text: str) -> list[str]:
    """Read the user names of a list: one a line, an @ before it if one likes; # begins a comment."""
    lines = [line.partition("#")[0].strip().removeprefix("@") for line in text.splitlines()]
    for number, line in enumerate(lines, start=1):
        if line and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]*(\[bot\])?", line):
            raise RefusedError(f"line {number} of {LIST.name} is no user name: write one name a line")
    return [line for line in lines if line]


def check(text: str, users: list[str]) -> None:
    """Refuse users who are not listed; GitHub does not tell upper from lower case."""
    listed = {name.casefold() for name in names(text)}
    for user in users:
        if user.casefold() not in listed:
            raise RefusedError(
                f"@{user} may not start this yet: add a line with your user name to "
                f".github/workflows/{LIST.name} in a pull request, and ask one of its owners to merge it"
            )


def main() -> int:
    """Check who pressed the button, and who pressed "Re-run" if that was somebody else."""
    users = [os.environ.get(name, "") for name in ("ACTOR", "TRIGGERING_ACTOR")]
    try:
        if not any(users):
            raise RefusedError("nobody is known to have started this: give ACTOR")
        check(LIST.read_text(encoding="utf-8-sig"), sorted({user for user in users if user}))
    except RefusedError as error:
        return refuse("Not on the list", error)
    print("on the list")
    return 0


if __name__ == "__main__":
    sys.exit(main())
