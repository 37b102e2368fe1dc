"""A PostgreSQL server in one directory: created, started, found again and stopped."""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import programs
import psutil
from programs import Account, DatabaseError

ROLE = "workflow"  # the role that may log in, and the database it owns
SPACE_NEEDED = 300 * 2**20  # bytes: a new cluster, its write-ahead log and a little data
PATIENCE = 60  # s, for a start (crash recovery included) or a stop

SETTINGS = """\
cluster_name = '{cluster}'
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '{socket}'
unix_socket_permissions = 0777  # a container runs as somebody else; the password decides
password_encryption = 'scram-sha-256'
timezone = 'UTC'
log_timezone = 'UTC'
shared_buffers = 256MB
max_wal_size = 1GB
checkpoint_timeout = 15min
wal_level = minimal  # nothing replicates from here
max_wal_senders = 0
jit = off
"""

ACCESS = f"""\
# Only this role, only with its password.
local  {ROLE}  {ROLE}                scram-sha-256
host   {ROLE}  {ROLE}  127.0.0.1/32  scram-sha-256
"""


class Server:
    """The server that keeps its data under `directory`.

    Parameters
    ----------
    directory : Path
        A directory of its own: missing, empty, or made by an earlier start.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory.expanduser().resolve()
        self.data = self.directory / "data"
        self.log = self.data / "server.log"
        self.password_file = self.directory / "password"
        self.connection_file = self.directory / "connection.json"
        self.lock_file = self.directory / "embedded_database.lock"

    def pid(self) -> int | None:
        """Return the process id of the running server, or None."""
        postmaster = self._postmaster()
        if postmaster is None:
            return None
        command = postmaster.cmdline()
        folder = Path(command[command.index("-D") + 1])
        return int(postmaster.pid) if folder.exists() and folder.samefile(self.data) else None

    def _postmaster(self) -> psutil.Process | None:
        """Find the PostgreSQL server whose number is in postmaster.pid.

        A machine that lost power leaves the file, and the number may now belong to any program.
        """
        try:
            number = (self.data / "postmaster.pid").read_text(encoding="utf-8").split("\n", 1)[0]
            process = psutil.Process(int(number))
            command = process.cmdline()
        except (FileNotFoundError, psutil.NoSuchProcess, ValueError):
            return None
        return process if command and Path(command[0]).name == "postgres" and "-D" in command else None

    @property
    def cluster(self) -> str:
        """A name in the title of every process of this server, by which orphans are recognised."""
        status = self.data.stat()
        return f"workflow-{status.st_dev:x}-{status.st_ino:x}"

    def start(self) -> bool:
        """Start the server and write connection.json; say whether it had to be started.

        Raises
        ------
        DatabaseError
            If it cannot be created or started; the message is one line.
        """
        with self._locked():
            owner = programs.server_account(self.data)
            folder = programs.programs(owner, self.directory, self.data)
            if self.pid() is not None:
                if self._reachable():
                    return False
                self._end(owner, folder)  # somebody removed its socket or connection.json
            if not self.data.exists():
                self._create(owner, folder)
            elif not self.password_file.exists():
                raise DatabaseError(
                    f"{self.password_file} is missing: restore it, or remove {self.directory} to begin afresh"
                )
            socket_directory = self._socket_directory(owner)
            self._clear_after_crash(socket_directory)
            for attempt in range(3):
                port = self._port(remembered=attempt == 0)
                if self._launch(owner, folder, socket_directory, port):
                    break
            else:
                raise DatabaseError(f"cannot start: no free port on 127.0.0.1; see {self.log}")
            self._write_connection(socket_directory, port)
            return True

    def stop(self) -> bool:
        """Stop the server; say whether it had to be stopped."""
        if not self.lock_file.exists():
            return False
        with self._locked():
            if self.pid() is None:
                return False
            owner = programs.server_account(self.data)
            self._end(owner, programs.programs(owner, self.directory, self.data))
            return True

    def _end(self, owner: Account, folder: Path) -> None:
        """Stop the running server and wait until it has stopped."""
        arguments = ("stop", "-D", self.data, "-m", "fast", "-w", "-t", str(PATIENCE))
        status, output = programs.run(owner, folder / "pg_ctl", *arguments)
        if status != 0:
            raise DatabaseError(f"cannot stop: {programs.one_line(output)}; see {self.log}")

    def _reachable(self) -> bool:
        """Say whether connection.json and the socket that it names are there."""
        return Path(self._remembered("host"), f".s.PGSQL.{self._remembered('port')}").is_socket()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Let one process at a time start or stop this server."""
        self.directory.mkdir(parents=True, exist_ok=True)
        if not self.lock_file.exists() and any(self.directory.iterdir()):
            raise DatabaseError(
                f"{self.directory} is not empty and holds no embedded database: choose another directory"
            )
        with self.lock_file.open("a", encoding="utf-8") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def _create(self, owner: Account, folder: Path) -> None:
        """Create the cluster, its role and its database; either all of it or nothing."""
        free = shutil.disk_usage(self.directory).free
        if free < SPACE_NEEDED:
            raise DatabaseError(
                f"the disk of {self.directory} is full: {free >> 20} MB are free, "
                f"{SPACE_NEEDED >> 20} MB are needed"
            )
        self.directory.chmod(0o711 if owner.differs else 0o700)
        unfinished = self.directory / "data.unfinished"
        if unfinished.exists():
            shutil.rmtree(unfinished)
        unfinished.mkdir(mode=0o700)
        os.chown(unfinished, owner.uid, owner.gid)

        options = ("-U", "postgres", "--auth=reject", "--no-locale", "--encoding=UTF8", "--no-instructions")
        self._must(owner, folder / "initdb", *options, "-D", unfinished)
        (unfinished / "pg_hba.conf").write_text(ACCESS, encoding="utf-8")
        with (unfinished / "postgresql.conf").open("a", encoding="utf-8") as configuration:
            configuration.write("\ninclude 'embedded.conf'\n")
        (unfinished / "embedded.conf").write_text("", encoding="utf-8")

        # The password travels by standard input: a command line can be read by every user of the machine.
        password = secrets.token_urlsafe(24)
        statements = f"CREATE ROLE {ROLE} LOGIN PASSWORD '{password}'\nCREATE DATABASE {ROLE} OWNER {ROLE}\n"
        single = ("--single", "-j", "-D", unfinished, "postgres")
        self._must(owner, folder / "postgres", *single, statements=statements.replace("\n", ";\n\n"))
        write_private(self.password_file, password + "\n")
        unfinished.rename(self.data)

    def _must(self, owner: Account, program: Path, *arguments: str | Path, statements: str = "") -> None:
        """Run a program of the first start; a failure is the end of it."""
        status, output = programs.run(owner, program, *arguments, statements=statements)
        if status != 0 or re.search(r"\b(ERROR|FATAL|PANIC):", output):
            raise DatabaseError(f"{program.name} failed: {programs.one_line(output)}")

    def _clear_after_crash(self, socket_directory: Path) -> None:
        """Remove the lock files that a killed server left, once nothing of it runs any more.

        PostgreSQL would do so itself, unless the number of the dead process is in use again or the process
        stays as a zombie, as it does in a container without an init.
        """
        left = self.data / "postmaster.pid"
        if not left.exists() or self._postmaster() is not None:
            return
        title = f"postgres: {self.cluster}: "
        processes = psutil.process_iter(["cmdline"])
        orphans = [p for p in processes if " ".join(p.info["cmdline"] or ()).startswith(title)]
        for orphan in orphans:
            with suppress(psutil.NoSuchProcess):
                orphan.terminate()
        _, alive = psutil.wait_procs(orphans, timeout=10)
        if alive:
            pids = " ".join(str(process.pid) for process in alive)
            raise DatabaseError(f"processes of a killed server still run: end them first (kill {pids})")
        for lock in (left, *socket_directory.glob(".s.PGSQL.*")):
            lock.unlink()

    def _launch(self, owner: Account, folder: Path, socket_directory: Path, port: int) -> bool:
        """Start on a port; False if somebody took the port in the meantime."""
        settings = SETTINGS.format(cluster=self.cluster, port=port, socket=socket_directory)
        (self.data / "embedded.conf").write_text(settings, encoding="utf-8")
        if self.log.exists():
            self.log.replace(self.log.with_suffix(".log.old"))
        arguments = ("start", "-D", self.data, "-l", self.log, "-w", "-t", str(PATIENCE))
        status, output = programs.run(owner, folder / "pg_ctl", *arguments)
        if status == 0:
            return True
        log = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else output
        if "could not bind IPv4 address" in log:
            return False
        raise DatabaseError(f"cannot start: {programs.one_line(log)}; see {self.log}")

    def _remembered(self, name: str) -> str:
        """Read one value of an earlier connection.json; '' if there is none."""
        try:
            return str(json.loads(self.connection_file.read_text(encoding="utf-8"))[name])
        except (FileNotFoundError, ValueError, KeyError):
            return ""

    def _port(self, remembered: bool) -> int:
        """Choose a free TCP port, the one of the last start if it is still free."""
        earlier = self._remembered("port") if remembered else ""
        for candidate in (int(earlier), 0) if earlier.isdigit() else (0,):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", candidate))
                except OSError:
                    continue
                return int(probe.getsockname()[1])
        raise DatabaseError("no free TCP port on 127.0.0.1")

    def _socket_directory(self, owner: Account) -> Path:
        """Choose a directory for the socket in which a socket can be made and whose name needs no quoting."""
        beside = self.directory / "socket"
        if can_hold_socket(beside):
            beside.mkdir(exist_ok=True)
            beside.chmod(0o755)
            os.chown(beside, owner.uid, owner.gid)
            return beside
        earlier = Path(self._remembered("host") or beside)
        if earlier != beside and earlier.is_dir() and earlier.stat().st_uid == owner.uid:
            return earlier
        # Too long or too odd a path: a fresh private directory, since a guessable name could be occupied.
        fallback = Path(tempfile.mkdtemp(prefix="workflow-db-"))
        fallback.chmod(0o755)
        os.chown(fallback, owner.uid, owner.gid)
        return fallback

    def _write_connection(self, socket_directory: Path, port: int) -> None:
        """Write connection.json in one step, so that a reader never sees half of it."""
        where = {
            "backend": "postgresql",
            "host": str(socket_directory),
            "port": port,
            "tcp_host": "127.0.0.1",
            "tcp_port": port,
            "user": ROLE,
            "name": ROLE,
            "password_file": str(self.password_file),
        }
        new = self.connection_file.with_suffix(".json.new")
        new.write_text(json.dumps(where, indent=2) + "\n", encoding="utf-8")
        new.chmod(stat.S_IRUSR | stat.S_IWUSR | stat.S_IRGRP | stat.S_IROTH)
        new.replace(self.connection_file)


def can_hold_socket(directory: Path) -> bool:
    """Say whether a Unix socket can be made in a directory: length of the path, kind of file system.

    Only plain names count, since PostgreSQL and DataJoint give a meaning to commas, quotes and colons.
    """
    if not re.fullmatch(r"[\w./ -]+", str(directory)):
        return False
    directory.mkdir(exist_ok=True)
    trial = directory / ".s.PGSQL.65535"  # the longest name PostgreSQL gives a socket
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.bind(str(trial))
        except OSError:
            return False
    trial.unlink()
    return True


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, from the first moment on."""
    path.unlink(missing_ok=True)
    with os.fdopen(
        os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8"
    ) as handle:
        handle.write(text)
