"""Command line of the emulated EC2: `start` it (or use the one that runs), `release` it afterwards.

`image` makes the image of machines that are containers, `remove` removes such machines for good.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import session
from .backend import BackendError
from .machine import DeclarationError, declaration
from .processes import controlling_playbook

MAKE_IMAGE = Path(__file__).parents[1] / "machine" / "make_image"
FOLDER = "folder of the server and its machines"
WATCH = "process that uses the server (default: the ansible-playbook run above this one)"


def main(arguments: list[str] | None = None) -> int:
    """Run one command, print its outcome as JSON; return 0, or 2 with one line on standard error."""
    options = parser().parse_args(arguments)
    try:
        print(json.dumps(options.run(options)))
    except (session.SessionError, DeclarationError, BackendError) as error:
        print(f"ec2_emulator: {error}", file=sys.stderr)
        return 2
    return 0


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    top = argparse.ArgumentParser(prog="ec2_emulator", description=__doc__)
    commands = top.add_subparsers(required=True)

    def command(name: str, run: Callable[..., dict[str, Any]], text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text)
        made.set_defaults(run=run)
        return made

    text = "start the server unless it runs, and use it; declared instances (JSON) on stdin"
    one = command("start", start, text)
    one.add_argument("directory", type=Path, help=FOLDER)
    one.add_argument("--watch-pid", type=int, default=0, help=WATCH)
    one.add_argument("--lag", type=float, default=0.3, help="seconds of pending and of stopping")
    one.add_argument("--grace", type=float, default=5.0, help="seconds from SIGTERM to SIGKILL")
    one.add_argument("--backend", choices=["localhost", "container"], default="localhost")
    one.add_argument("--image", default="", help="image of machines that are containers")
    one.add_argument("--key-file", default="", help="private SSH key that opens the machines")
    one.add_argument("--ca-bundle", default="", help="file of the authorities that the machines trust")
    one = command("release", release, "use the server no longer; it ends with its last user")
    one.add_argument("directory", type=Path, help=FOLDER)
    one.add_argument("--watch-pid", type=int, default=0, help=WATCH)
    one = command("image", image, "make the image of machines that are containers, unless it is there")
    one.add_argument("--bare", action="store_true", help="without an engine and all else that setup installs")
    one.add_argument("images", nargs="*", help="images that a new machine's own engine has")
    one = command("remove", remove, "remove all machines of a folder that are containers, and their disks")
    one.add_argument("directory", type=Path, help=FOLDER)
    return top


def start(options: argparse.Namespace) -> dict[str, Any]:
    """Use the folder's server."""
    given = json.load(sys.stdin)
    if options.key_file:
        public = session.public_key(Path(options.key_file))
        given = [{"public_key": public, **one} for one in given]
    declared = [declaration(one) for one in given]
    ids = [one["id"] for one in declared]
    if twice := {one for one in ids if ids.count(one) > 1}:
        raise DeclarationError(f"instance {twice.pop()} is declared twice; give each one an id of its own")
    further = ["--lag", str(options.lag), "--grace", str(options.grace)]
    further += ["--image", options.image, "--ca-bundle", options.ca_bundle]
    return session.start(options.directory.resolve(), declared, _user(options), options.backend, further)


def release(options: argparse.Namespace) -> dict[str, Any]:
    """Use it no longer."""
    return session.release(options.directory.resolve(), _user(options))


def image(options: argparse.Namespace) -> dict[str, Any]:
    """Make the machines' image."""
    if options.bare and options.images:
        raise BackendError("a bare machine has no engine, and so no images: leave them out, or --bare")
    from . import engine

    with engine.errors("the container engine does not tell of itself"):
        flags = engine.isolation_flags(engine.connect().info())
    kind = "bare" if options.bare else "worker"
    done = subprocess.run(
        [MAKE_IMAGE, kind, " ".join(options.images), *flags], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BackendError((done.stderr.strip().splitlines() or ["make_image failed and said nothing"])[-1])
    name, _, made = done.stdout.strip().partition(" ")
    return {"image": name, "made": made == "made"}


def remove(options: argparse.Namespace) -> dict[str, Any]:
    """Remove a folder's machines."""
    directory = options.directory.resolve()
    if directory.exists() and session.living(directory):
        raise session.SessionError(f"a round uses the machines of {directory}; wait until it has ended")
    from . import engine

    removed = engine.remove(directory)
    for kept in ("machines", "network.json", "addresses.json"):
        path = directory / kept
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return {"removed": removed}


def _user(options: argparse.Namespace) -> int:
    if options.watch_pid:
        return int(options.watch_pid)
    playbook = controlling_playbook(os.getpid())
    if playbook is None:
        raise session.SessionError("no ansible-playbook is above this process; name its user by --watch-pid")
    return playbook.pid


if __name__ == "__main__":
    sys.exit(main())
