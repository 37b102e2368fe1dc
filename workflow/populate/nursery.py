"""The process that brings forth workers.

A worker's interpreter must be its own, quick to start, and free of other threads' locks. So one process is
forked from the supervisor when everything has been imported and every table bound, but before there is a
thread or while the database connection is closed; it does nothing but fork workers when the supervisor asks,
which takes milliseconds and shares the imported code's memory, and report how they ended. Starting each
worker as a new interpreter would take more than a second of a core, and forking from the supervisor itself
would copy its threads' locks and its connections.

The kernel kills this process when the supervisor ends, and workers when this process ends.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from workflow.populate import machine

_MESSAGE = 65536
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_forking = threading.local()  # the signals that a thread had blocked before it forked

#: What a worker does: takes its end of a socket, a file for its last words, and what `spawn` was given.
Work = Callable[[socket.socket, int, Any], None]


@dataclass(frozen=True)
class Born:
    """A worker has started."""

    number: int
    pid: int


@dataclass(frozen=True)
class Died:
    """A worker has ended: its wait status, and the most memory that it had (bytes)."""

    number: int
    pid: int
    status: int
    peak_memory: int


class Nursery:
    """The supervisor's end.

    Parameters
    ----------
    work : callable
        What a worker does.
    """

    def __init__(self, work: Work) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        supervisor = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            self._ours.close()
            _live(supervisor, theirs, work)
        theirs.close()
        self.fileno = self._ours.fileno

    def spawn(self, number: int, last_words: int, given: Any) -> socket.socket:
        """Ask for a worker; returns our end of its socket. `Born` is reported when it is there."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        socket.send_fds(self._ours, [pickle.dumps((number, given))], [theirs.fileno(), last_words])
        theirs.close()
        return ours

    def report(self) -> Born | Died | None:
        """Read one report; None if the nursery is no more."""
        try:
            data = self._ours.recv(_MESSAGE)
        except ConnectionError:
            return None
        return pickle.loads(data) if data else None  # noqa: S301

    def close(self) -> None:
        """End this process, and with it every worker that is left."""
        self._ours.close()
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def _live(supervisor: int, control: socket.socket, work: Work) -> None:
    """Fork workers until the supervisor is gone."""
    try:
        machine.die_with_parent(supervisor)
        _be_quiet()
        wake, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        gc.collect()
        gc.freeze()  # so that the collector of a worker does not copy what it shares with us
        children: dict[int, int] = {}
        while True:
            ready, _, _ = select.select([control.fileno(), wake], [], [])
            if control.fileno() in ready:
                data, handles, _, _ = socket.recv_fds(control, _MESSAGE, 2)
                if not data:
                    os._exit(0)
                number, given = pickle.loads(data)  # noqa: S301
                nursery = os.getpid()
                pid = os.fork()
                if pid == 0:
                    for unused in (wake, woken, control.detach()):
                        os.close(unused)
                    _be_born(nursery, handles, given, work)
                for handle in handles:
                    os.close(handle)
                children[pid] = number
                control.send(pickle.dumps(Born(number, pid)))
            if wake in ready:
                os.read(wake, 512)
                _bury(control, children)
    except BaseException:  # never return into a copy of the supervisor
        sys.excepthook(*sys.exc_info())
        os._exit(1)


def _be_quiet() -> None:
    """What computations print must not mix with the supervisor's output; signals are its affair too."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]


def _shrug_off_signals() -> None:
    """Leave signals to the supervisor, but let what a computation starts be ended by them, as it expects.

    A signal that is ignored stays so in every program that is started, and ``Pool.terminate`` would wait for
    ever. A handler goes with the program, and a forked copy gives it up; a signal that it is sent before,
    by a parent in haste, is held back until then.
    """
    for number in _SIGNALS:
        signal.signal(number, _shrug)
    os.register_at_fork(before=_hold_signals, after_in_parent=_let_signals_go, after_in_child=_mind_signals)


def _shrug(*_: object) -> None:
    """Do nothing."""


def _hold_signals() -> None:
    _forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


def _let_signals_go() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _forking.mask)


def _mind_signals() -> None:
    for number in _SIGNALS:
        if signal.getsignal(number) is _shrug:
            signal.signal(number, signal.SIG_DFL)
    _let_signals_go()


def _bury(control: socket.socket, children: dict[int, int]) -> None:
    while children:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            return
        if ended.si_pid in children:  # while its number is still its own: end what it had started
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(ended.si_pid, signal.SIGKILL)
        pid, status, usage = os.wait4(ended.si_pid, 0)
        if pid in children:
            control.send(pickle.dumps(Died(children.pop(pid), pid, status, usage.ru_maxrss * 1024)))


def _be_born(nursery: int, handles: list[int], given: Any, work: Work) -> None:
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _shrug_off_signals()
        os.setpgid(0, 0)  # so that it can be killed together with what it starts
        machine.die_with_parent(nursery)
        np.random.seed()  # Python seeds its own generator after a fork, NumPy does not
        work(socket.socket(fileno=handles[0]), handles[1], given)
        status = 0
    except BaseException:  # never return into a copy of the nursery
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(status)
