"""Command line of the emulated EC2: `start` it (or use the one that runs), and `release` it afterwards."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from . import session
from .machine import DeclarationError, declaration
from .processes import controlling_playbook

WATCH = "process that uses the server (default: the ansible-playbook run above this one)"


def main(arguments: list[str] | None = None) -> int:
    """Run one command, print its outcome as JSON; return 0, or 2 with one line on standard error."""
    options = parser().parse_args(arguments)
    try:
        print(json.dumps(options.run(options)))
    except (session.SessionError, DeclarationError) as error:
        print(f"ec2_emulator: {error}", file=sys.stderr)
        return 2
    return 0


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    top = argparse.ArgumentParser(prog="ec2_emulator", description=__doc__)
    commands = top.add_subparsers(required=True)
    for name, run, text in (
        ("start", start, "start the server unless it runs, and use it; declared instances (JSON) on stdin"),
        ("release", release, "use the server no longer; it ends with its last user"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        command.add_argument("directory", type=Path, help="folder of the server and its machines")
        command.add_argument("--watch-pid", type=int, default=0, help=WATCH)
        if name == "start":
            command.add_argument("--lag", type=float, default=0.3, help="seconds of pending and of stopping")
            command.add_argument("--grace", type=float, default=5.0, help="seconds from SIGTERM to SIGKILL")
    return top


def start(options: argparse.Namespace) -> dict[str, Any]:
    """Use the folder's server."""
    declared = [declaration(one) for one in json.load(sys.stdin)]
    ids = [one["id"] for one in declared]
    if twice := {one for one in ids if ids.count(one) > 1}:
        raise DeclarationError(f"instance {twice.pop()} is declared twice; give each one an id of its own")
    further = ["--lag", str(options.lag), "--grace", str(options.grace)]
    return session.start(options.directory.resolve(), declared, _user(options), further)


def release(options: argparse.Namespace) -> dict[str, Any]:
    """Use it no longer."""
    return session.release(options.directory.resolve(), _user(options))


def _user(options: argparse.Namespace) -> int:
    if options.watch_pid:
        return int(options.watch_pid)
    playbook = controlling_playbook(os.getpid())
    if playbook is None:
        raise session.SessionError("no ansible-playbook is above this process; name its user by --watch-pid")
    return playbook.pid


if __name__ == "__main__":
    sys.exit(main())
