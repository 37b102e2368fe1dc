"""A PostgreSQL server in one directory: created, started, found again and stopped."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import address
import programs
import psutil
from programs import Account, DatabaseError

ROLE = "workflow"  # the role that may log in, and the database it owns
SPACE_NEEDED = 300 * 2**20  # bytes: a new cluster, its write-ahead log and a little data
PATIENCE = 60  # s, for a start (crash recovery included) or a stop

SETTINGS = """\
cluster_name = '{cluster}'
listen_addresses = '{listen}'
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

MORE_ACCESS = f"host   {ROLE}  {ROLE}  {{clients}}  scram-sha-256\n"


class Server:
    """The server that keeps its data under `directory`.

    Parameters
    ----------
    directory : Path
        A directory of its own: missing, empty, or made by an earlier start.
    also : IPv4Address or None
        An address of this machine, besides 127.0.0.1, at which it listens.
    clients : IPv4Network or None
        The network from which it may be reached there.
    """

    def __init__(
        self, directory: Path, also: IPv4Address | None = None, clients: IPv4Network | None = None
    ) -> None:
        self.addresses = ["127.0.0.1", *([str(also)] if also else [])]
        self.clients = clients
        self.directory = directory.expanduser().resolve()
        self.data = self.directory / "data"
        self.log = self.data / "server.log"
        self.password_file = self.directory / "password"
        self.connection_file = self.directory / "connection.json"
        self.lock_file = self.directory / "embedded_database.lock"

    def pid(self) -> int | None:
        """Return the process id of the running server, or None."""
        number, folder = self._postmaster() or (None, self.data)
        return number if folder.exists() and folder.samefile(self.data) else None

    def _postmaster(self) -> tuple[int, Path] | None:
        """Find the PostgreSQL server whose number is in postmaster.pid, and its data directory.

        A machine that lost power leaves the file, and the number may now belong to any program.
        """
        try:
            number = int((self.data / "postmaster.pid").read_text(encoding="utf-8").split("\n", 1)[0])
            command = psutil.Process(number).cmdline()
        except (FileNotFoundError, psutil.NoSuchProcess, ValueError):
            return None
        if not command or Path(command[0]).name != "postgres" or "-D" not in command:
            return None
        return number, Path(command[command.index("-D") + 1])

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
                self._end(owner, folder)  # it listens elsewhere, or somebody removed its socket
            if not self.data.exists():
                self._create(owner, folder)
            elif not self.password_file.exists():
                raise DatabaseError(
                    f"{self.password_file} is missing: restore it, or remove {self.directory} to begin afresh"
                )
            earlier = address.read_connection(self.connection_file)
            sockets = address.socket_directory(self.directory / "socket", earlier.get("host", ""), owner)
            self._clear_after_crash(sockets)
            port = address.free_port(self.addresses, earlier.get("port", 0))
            while not self._launch(owner, folder, sockets, port):
                port = address.free_port(self.addresses)
            address.write_connection(self.connection_file, self._connection(sockets, port))
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
        """Say whether it listens where it should, at the socket that connection.json names among others."""
        there = address.read_connection(self.connection_file)
        if not set(self.addresses) <= set(there.get("addresses", ["127.0.0.1"])):
            return False
        return bool(there) and Path(there["host"], f".s.PGSQL.{there['port']}").is_socket()

    def _connection(self, sockets: Path, port: int) -> dict[str, Any]:
        """Say all that a client needs but the password."""
        return {
            "backend": "postgresql",
            "host": str(sockets),
            "port": port,
            "tcp_host": "127.0.0.1",
            "tcp_port": port,
            "addresses": self.addresses,
            "user": ROLE,
            "name": ROLE,
            "password_file": str(self.password_file),
        }

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
                f"{SPACE_NEEDED >> 20} MB are needed: free some space"
            )
        self.directory.chmod(0o711 if owner.differs else 0o700)
        unfinished = self.directory / "data.unfinished"
        if unfinished.exists():
            shutil.rmtree(unfinished)
        unfinished.mkdir(mode=0o700)
        os.chown(unfinished, owner.uid, owner.gid)

        options = ("-U", "postgres", "--auth=reject", "--no-locale", "--encoding=UTF8", "--no-instructions")
        self._must(owner, folder / "initdb", *options, "-D", unfinished)
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

    def _clear_after_crash(self, sockets: Path) -> None:
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
        for lock in (left, *sockets.glob(".s.PGSQL.*")):
            lock.unlink()

    def _launch(self, owner: Account, folder: Path, sockets: Path, port: int) -> bool:
        """Start on a port; False if somebody took the port in the meantime."""
        listen = ",".join(self.addresses)
        settings = SETTINGS.format(cluster=self.cluster, listen=listen, port=port, socket=sockets)
        access = ACCESS + (MORE_ACCESS.format(clients=self.clients) if self.clients else "")
        (self.data / "pg_hba.conf").write_text(access, encoding="utf-8")
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


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, from the first moment on."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
        handle.write(text)
