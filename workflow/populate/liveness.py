"""Who is alive: this crew's heart, and the watch over the others.

The supervisor beats for its workers: the kernel ties their lives to its own, and a computation that keeps
its interpreter busy for hours cannot stop the heart of another process. The heart has a thread and a
connection of its own, and holds a lock on the server for as long as that connection lasts.

A crew is dead when its process is gone (seen from the same machine), or when its heart has not beaten for
`SILENT` beats, or for `UNLOCKED` beats if its lock is free as well: the server gives a lock back at once when
a process or a container is killed, but not when a machine is unplugged. Beats are counted by watching them,
on one unbroken connection: clocks do not matter, and after a restart of the server, when everybody has been
silent, everybody gets the time to be heard again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from workflow.populate import dialect, ledger, machine
from workflow.populate.troubles import classify, pause

SILENT = 12  # beats
UNLOCKED = 3
STUCK = 60.0  # s beyond the patience, after which a heart that has not even failed is stuck


@dataclass(frozen=True)
class Others:
    """Other crews that have not ended: the dead, with their last heartbeats; those not heard lately."""

    dead: Mapping[int, Any] = field(default_factory=dict)
    silent: frozenset[int] = frozenset()


@dataclass
class _Seen:
    heartbeat: Any
    at: float
    heard: bool  # lately; not yet when first seen


def lock_name(crew: int, part: str = "heart") -> str:
    """The lock that a connection of a living crew holds: its heart's, its clerk's, or one of its workers'."""
    return f"{part} of {crew}"


class Watch:
    """Judge whether other crews live.

    Parameters
    ----------
    connection : datajoint.Connection
        One that does not reconnect by itself: after a loss, watching starts afresh with another.
    crew : int
        Ours, which is never judged.
    interval : float
        Seconds between two beats.
    """

    def __init__(self, connection: Any, crew: int, interval: float) -> None:
        self._connection, self._crew, self._interval = connection, crew, interval
        self._place = machine.place()
        self._seen: dict[int, _Seen] = {}

    def look(self) -> Others:
        """Look around."""
        dead: dict[int, Any] = {}
        silent: set[int] = set()
        for row in ledger.beating(self._connection):
            crew = int(row["crew"])
            if crew == self._crew:
                continue
            if self._is_dead(crew, row):
                dead[crew] = row["heartbeat"]
            elif crew in self._seen and not self._seen[crew].heard:
                silent.add(crew)
        return Others(dead, frozenset(silent))

    def _is_dead(self, crew: int, row: dict[str, Any]) -> bool:
        if row["place"] == self._place:
            return machine.started(int(row["pid"])) != int(row["pid_started"])
        moment, seen = time.monotonic(), self._seen.get(crew)
        if seen is None or seen.heartbeat != row["heartbeat"]:
            self._seen[crew] = _Seen(row["heartbeat"], moment, heard=seen is not None)
            return False
        quiet = moment - seen.at
        seen.heard = seen.heard and quiet < 2 * self._interval
        if quiet < UNLOCKED * self._interval:
            return False
        return quiet > SILENT * self._interval or not dialect.is_locked(self._connection, lock_name(crew))


class Heart(threading.Thread):
    """Beat for a crew and watch the others, until stopped.

    Parameters
    ----------
    connect : callable
        Opens a connection.
    crew : int
        Ours.
    interval : float
        Seconds between two beats.
    patience : float
        Seconds after which trouble with the database is an `error`.
    hands : callable
        The crew's living processes and what they do.

    Attributes
    ----------
    others : Others
        What was seen last.
    error : Exception or None
        What ended the heart.
    """

    def __init__(
        self,
        connect: Callable[[], Any],
        crew: int,
        interval: float,
        patience: float,
        hands: Callable[[], Iterable[ledger.Hand]],
    ) -> None:
        super().__init__(name="heart", daemon=True)
        self._connect, self._crew, self._hands = connect, crew, hands
        self._interval, self._patience = interval, patience
        self._stopped = threading.Event()
        self._reviving = threading.Lock()
        self._leaving = False
        self.others = Others()
        self.error: Exception | None = None
        self._fine = time.monotonic()

    def trouble(self) -> Exception | None:
        """What ended the heart, or that the server has let it wait for longer than anybody is patient."""
        silence = time.monotonic() - self._fine
        if self.error is None and self.is_alive() and silence > self._patience + STUCK:
            return ConnectionError(f"the database server has not answered for {silence:.0f} s")
        return self.error

    def leave(self) -> None:
        """Beat on while the crew signs off, but do not take back that it has ended."""
        mine = self._reviving.acquire(timeout=2 * self._interval)  # the server may not answer the heart
        self._leaving = True
        if mine:
            self._reviving.release()

    def stop(self) -> None:
        """Stop beating."""
        self._stopped.set()
        self.join(timeout=2 * self._interval)

    def run(self) -> None:
        """Beat."""
        connection: Any = None
        watch: Watch | None = None
        tries, self._fine = 0, time.monotonic()
        while not self._stopped.is_set():
            try:
                if connection is None or watch is None:
                    connection = self._connect()
                    dialect.limit_waits(connection)
                    dialect.take_lock(connection, lock_name(self._crew))
                    watch = Watch(connection, self._crew, self._interval)
                self._beat(connection, watch)
                tries, self._fine = 0, time.monotonic()
                self._stopped.wait(self._interval)
            except Exception as error:
                if classify(error) is None or time.monotonic() - self._fine > self._patience:
                    self.error = error
                    break
                _close(connection)
                connection = watch = None
                tries += 1
                self._stopped.wait(pause(tries, most=self._interval))  # others count our beats
        _close(connection)

    def _beat(self, connection: Any, watch: Watch) -> None:
        hands = list(self._hands())
        if not ledger.beat(connection, self._crew, hands):
            with self._reviving:
                if not self._leaving:
                    ledger.revived(connection, self._crew, [hand.worker for hand in hands])
        self.others = watch.look()


def _close(connection: Any) -> None:
    if connection is not None:
        try:
            connection.close()
        except Exception as error:
            if classify(error) is None:
                raise
