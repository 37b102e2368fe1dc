"""Refuse who is not on the list of those who may press the buttons. Runs before any credential is touched."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from commands import RefusedError, refuse

LIST = Path(__file__).resolve().parents[1] / "workflows" / "start_process_allow_list"
NAME = r"[A-Za-z0-9][A-Za-z0-9_-]*(\[bot\])?"


def names(text: str) -> list[str]:
    """Read the user names of a list: one a line, an @ before it if one likes; # begins a comment.

    Only a line feed ends a line, as it does for whoever reviews the list: what hides behind other characters
    is refused, or part of a comment.
    """
    lines = [line.partition("#")[0].strip(" \t\r").removeprefix("@") for line in text.split("\n")]
    for number, line in enumerate(lines, start=1):
        if line and not re.fullmatch(NAME, line):
            raise RefusedError(f"line {number} of {LIST.name} is no user name: write one name a line")
    return [line for line in lines if line]


def check(text: str, users: list[str]) -> None:
    """Refuse users who are not listed; GitHub does not tell upper from lower case."""
    listed = {name.lower() for name in names(text)}
    for user in users:
        if not re.fullmatch(NAME, user) or user.lower() not in listed:
            raise RefusedError(
                f"@{user} may not start this yet: add a line with your user name to "
                f".github/workflows/{LIST.name} in a pull request, and ask one of its owners to merge it"
            )


def main() -> int:
    """Check who pressed the button, and who pressed "Re-run" if that was somebody else."""
    users = [os.environ.get(name, "") for name in ("ACTOR", "TRIGGERING_ACTOR")]
    try:
        if not all(users):
            raise RefusedError("nobody is known to have started this: give ACTOR and TRIGGERING_ACTOR")
        check(LIST.read_bytes().decode("utf-8-sig", errors="replace"), list(dict.fromkeys(users)))
    except RefusedError as error:
        return refuse("Not on the list", error)
    print("on the list")
    return 0


if __name__ == "__main__":
    sys.exit(main())
