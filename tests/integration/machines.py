"""Machines to run the worker on, and to kill: made of the kernel's namespaces, as containers are.

A `Machine` has its own host name and process table (its command is process 1) and, with a `Cable`, a network
of its own whose only way out is that cable, which can be pulled. Needs root, or a kernel that lets users have
namespaces.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PATIENCE = 120.0  # s, for anything that must happen


def wait_for(what: str, happened: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE
    while not happened():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {PATIENCE:g} s in vain for this: {what}")
        time.sleep(0.05)


def has_namespaces() -> bool:
    """Whether this user may make machines."""
    command = [*_unshare(network=True), "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _unshare(*, network: bool) -> list[str]:
    command = ["unshare", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc"]
    command += ["--net"] if network else []
    return command + ([] if os.geteuid() == 0 else ["--map-root-user"])


#: Process 1 of a machine: name it, plug the cable in, become the command.
_INIT = """
import fcntl, os, socket, struct, sys
name, handle, port, *command = sys.argv[1:]
socket.sethostname(name)
if int(port):
    with socket.socket() as any_socket:  # the loopback interface is to be up and running
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 0x41))
    with socket.socket(fileno=int(handle)) as outside, socket.create_server(("127.0.0.1", int(port))) as plug:
        socket.send_fds(outside, [b"plug"], [plug.fileno()])
os.execvp(command[0], command)
"""


class Cable:
    """A machine's connection to a server; everything on it stands still while it is pulled out.

    Parameters
    ----------
    plug : socket
        Listens within the machine.
    target : tuple of str and int
        Where the server listens, outside.
    """

    def __init__(self, plug: socket.socket, target: tuple[str, int]) -> None:
        self._plug, self._target = plug, target
        self._plugged = threading.Event()
        self._plugged.set()
        self._ends: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def pull(self) -> None:
        """Let nothing through, in either direction; connections stay open."""
        self._plugged.clear()

    def push(self) -> None:
        """Let everything through again."""
        self._plugged.set()

    def cut(self) -> None:
        """Break every connection."""
        ends, self._ends = self._ends, []
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Break every connection for good."""
        with contextlib.suppress(OSError):  # it may be closed already
            self._plug.shutdown(socket.SHUT_RDWR)
        self._plug.close()
        self.push()
        self.cut()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                inner, _ = self._plug.accept()
                self._plugged.wait()
                try:
                    outer = socket.create_connection(self._target)
                except OSError:  # the server is away
                    inner.close()
                    continue
                for end in (inner, outer):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._ends += [inner, outer]
                self._threads.append(threading.Thread(target=self._carry, args=(inner, outer), daemon=True))
                self._threads[-1].start()

    def _carry(self, inner: socket.socket, outer: socket.socket) -> None:
        with inner, outer, contextlib.suppress(OSError):
            while True:
                ready, _, _ = select.select([inner, outer], [], [])
                for source in ready:
                    data = source.recv(65536)
                    self._plugged.wait()
                    if not data:
                        return
                    (outer if source is inner else inner).sendall(data)


@dataclass(frozen=True)
class Process:
    """A process, told from a later one with the same number."""

    pid: int
    started: str

    def is_alive(self) -> bool:
        return _stat(self.pid).get("started") == self.started


class Machine:
    """A command that runs on a machine of its own, or on this one.

    Parameters
    ----------
    command : sequence of str
        What to run.
    environment : mapping
        All of its environment.
    log : Path
        Where its output and errors go, after what is there.
    name : str
        Host name; empty for no machine of its own.
    target : tuple of str and int, optional
        A server to which this machine's only cable leads; it is found there at 127.0.0.1, the same port.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        name: str = "",
        target: tuple[str, int] | None = None,
    ) -> None:
        self.name, self.log, self.cable = name, log, None
        ours, theirs = socket.socketpair()
        with ours, theirs, log.open("ab") as output:
            handle, port = str(theirs.fileno()), str(target[1] if target else 0)
            init = [*_unshare(network=target is not None), sys.executable, "-c", _INIT, name, handle, port]
            self._popen = subprocess.Popen(
                [*(init if name else []), *command],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
            theirs.close()
            if target:
                self.cable = Cable(_receive(ours), target)

    def first(self) -> Process | None:
        """The process that runs the command, if it is there yet or still."""
        if not self.name:
            return _process(self._popen.pid) if self.exit_code() is None else None
        children = _children().get(self._popen.pid, [])
        return _process(children[0]) if children else None

    def generations(self) -> list[list[Process]]:
        """The command's process, its children, their children and so on."""
        found, children = [], _children()
        level = [first] if (first := self.first()) else []
        while level:
            found.append(level)
            pids = [pid for parent in level for pid in children.get(parent.pid, [])]
            level = [process for process in map(_process, pids) if process]
        return found

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal to the command's process, if there is one."""
        first = self.first()
        return first is not None and kill(first, number)

    def destroy(self) -> list[Process]:
        """Kill every process at once, as the end of a container does; those that there were."""
        everything = [process for generation in self.generations() for process in generation]
        if self.name:
            self.signal(signal.SIGKILL)
        else:
            for process in everything:
                kill(process)
        return everything

    def exit_code(self) -> int | None:
        """How the command ended; negative or above 128 for a signal; None while it runs."""
        return self._popen.poll()

    def wait(self) -> int:
        """Wait for the end."""
        wait_for(
            f"the end of {self.name or 'a command'}: {self.tail()}", lambda: self.exit_code() is not None
        )
        self.unplug()
        return self._popen.returncode

    def unplug(self) -> None:
        if self.cable:
            self.cable.close()

    def tail(self) -> str:
        """The last lines of its output."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])


@contextlib.contextmanager
def destroyed_in_the_end(machines: list[Machine]) -> Iterator[None]:
    """Leave nothing behind, however a test ends."""
    try:
        yield
    finally:
        for machine in machines:
            if machine.exit_code() is None:
                machine.destroy()
                machine._popen.kill()
                machine._popen.wait()
            machine.unplug()


def kill(process: Process, number: signal.Signals = signal.SIGKILL) -> bool:
    """Send a signal; whether the process was there."""
    try:
        os.kill(process.pid, number)
    except ProcessLookupError:
        return False
    return True


def _receive(outside: socket.socket) -> socket.socket:
    outside.settimeout(PATIENCE)
    _, handles, _, _ = socket.recv_fds(outside, 16, 1)
    assert handles, "the machine did not start"
    return socket.socket(fileno=handles[0])


def _stat(pid: int) -> dict[str, str]:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return {}
    fields = text.rpartition(")")[2].split()
    return {} if fields[0] in "ZX" else {"parent": fields[1], "started": fields[19]}


def _process(pid: int) -> Process | None:
    found = _stat(pid)
    return Process(pid, found["started"]) if found else None


def _children() -> dict[int, list[int]]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (found := _stat(int(entry.name))):
            children.setdefault(int(found["parent"]), []).append(int(entry.name))
    return children
