"""Where the server listens: a port and a socket directory that stay the same from start to start."""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import tempfile
from pathlib import Path
from typing import Any

from programs import Account, DatabaseError


def read_connection(path: Path) -> dict[str, Any]:
    """Read connection.json; an empty dictionary if there is none, or if it was damaged."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        return {}


def write_connection(path: Path, connection: dict[str, Any]) -> None:
    """Write connection.json in one step, so that a reader never sees half of it."""
    new = path.with_suffix(".json.new")
    new.write_text(json.dumps(connection, indent=2) + "\n", encoding="utf-8")
    new.chmod(0o644)
    new.replace(path)


TRIES = 20


def free_port(addresses: list[str], earlier: int = 0) -> int:
    """Choose a TCP port that is free at all these addresses: the earlier one if it still is, else any."""
    for candidate in (earlier, *[0] * TRIES):
        port = candidate
        try:
            for own in addresses:
                port = _bind(own, port)
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise DatabaseError(f"{own} is no address of this machine: name one that it has") from error
            continue
        return port
    raise DatabaseError(f"there is no free TCP port on {' and '.join(addresses)}: end some programs")


def _bind(own: str, port: int) -> int:
    """Try a port at an address, 0 being any; return it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((own, port))
        return int(probe.getsockname()[1])


def socket_directory(beside: Path, earlier: str, owner: Account) -> Path:
    """Choose a directory for the socket alone, so that a container can mount it.

    Parameters
    ----------
    beside : Path
        The first choice, next to the data.
    earlier : str
        The directory of the last start, or ''.
    owner : Account
        Who runs the server.
    """
    if not _can_hold_socket(beside):
        before = Path(earlier)
        if earlier and before != beside and before.is_dir() and before.stat().st_uid == owner.uid:
            return before
        # A fresh private directory, since a name that can be guessed could be occupied by somebody else.
        beside = Path(tempfile.mkdtemp(prefix="workflow-database-"))
    beside.chmod(0o755)
    os.chown(beside, owner.uid, owner.gid)
    return beside


def _can_hold_socket(directory: Path) -> bool:
    """Say whether a Unix socket can be made in a directory: length of the path, kind of file system.

    Only plain names count, since PostgreSQL and DataJoint give a meaning to commas, quotes and colons.
    """
    if not re.fullmatch(r"[\w./ -]+", str(directory)):
        return False
    directory.mkdir(exist_ok=True)
    trial = directory / "s.PGSQL.123456"  # as long as the longest name that PostgreSQL gives a socket
    trial.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.bind(str(trial))
        except OSError:
            return False
    trial.unlink()
    return True
