"""Measured in a process of its own, whose tables are bound: ``python -m bench.queue_child WHAT``.

``fill``: seconds that filling the queue takes, ours for all numbers, DataJoint's own for the first
``STOCK_KEYS``. ``claim``: claims everything that is queued, as many keys at a time as a supervisor does.
``poll``: searches for new keys when there are none, one per line of input.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import datajoint as dj

from workflow import commands
from workflow.populate import dialect
from workflow.populate.claim import Owner, Queue
from workflow.populate.clerk import Desk
from workflow.settings import load

STOCK_KEYS = 1000
CLAIM = 64  # keys
_OWNER = Owner(2**41, "bench", 1, "bench", "")


def fill() -> None:
    """Fill the queue of Square, in both ways."""
    tables = commands._open(load())
    table = tables["trivial.Square"]
    connection = dj.conn()
    dialect.prepare_session(connection)
    queue = Queue(0, "trivial.Square", table, [])
    ours = _seconds(queue.refresh)
    known = len(table.jobs)
    table.jobs.delete_quick()
    stock = _seconds(lambda: table.jobs.refresh(f"number < {STOCK_KEYS}", delay=-1))
    print(json.dumps({"ours": ours, "keys": known, "stock": stock, "stock_keys": len(table.jobs)}))


def claim() -> None:
    """Claim every key of Square."""
    tables = commands._open(load())
    connection = dj.conn()
    dialect.prepare_session(connection)
    queue = Queue(0, "trivial.Square", tables["trivial.Square"], [])
    while queue.claim(CLAIM, _OWNER):
        continue


def poll() -> None:
    """Search when told; ours, then DataJoint's own."""
    tables = commands._open(load())
    connection = dj.conn()
    dialect.prepare_session(connection)
    queues = [Queue(i, label, table, []) for i, (label, table) in enumerate(tables.items())]
    desk = Desk(queues, _OWNER, 2)
    print("ready", flush=True)
    for line in sys.stdin:
        if line.strip() == "ours":
            desk.refresh()
        else:
            for table in tables.values():
                table.populate(reserve_jobs=True)
        print("done", flush=True)


def _seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


if __name__ == "__main__":
    {"fill": fill, "claim": claim, "poll": poll}[sys.argv[1]]()
