"""Tables that gather many rows of others wait until these are complete.

A foreign key names one row, which is there before a key becomes due. But a ``key_source`` such as
``Subject & Event`` offers a subject as soon as it has its first event; computed then, and never again, its
row would lack all later ones. So such a key is due only when nothing is left to do upstream for it, that is,
with the same values of the key attributes that both have. Whether the tables upstream are part of the run
does not matter, nor why a key of theirs is not done: only those that somebody has parked are not waited for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from workflow.populate.filling import Filling


def let_gatherers_wait(queues: Sequence[Filling], served: Mapping[str, Any]) -> None:
    """Tell each queue for which of the others it waits.

    Parameters
    ----------
    queues : sequence of Filling
        The tables of a run, their dependencies loaded.
    served : mapping of str to table
        All tables, by label; what the run leaves out is waited for too.
    """
    if not any(_looks_at(queue, table) for queue in queues for table in served.values()):
        return
    chosen = {queue.label for queue in queues}
    left_out = [(label, table) for label, table in served.items() if label not in chosen]
    queues = [*queues, *(Filling(index, *one, []) for index, one in enumerate(left_out, len(queues)))]
    reads = {queue.index: {other.index for other in queues if _gathers(queue, other)} for queue in queues}
    upstream = {
        queue.index: {other.index for other in queues if _depends(queue, other)} | reads[queue.index]
        for queue in queues
    }
    for queue in queues:
        sources = set().union(*(_closure(index, upstream) for index in reads[queue.index]))
        if queue.index not in sources:  # two that gather each other's rows would both wait for ever
            queue.waits_for = [other for other in queues if other.index in sources]


def _gathers(queue: Filling, other: Filling) -> bool:
    """Whether a queue's key_source looks at another table, of which one key has several rows."""
    return _looks_at(queue, other.table) and not set(other.names) <= set(queue.names)


def _looks_at(queue: Filling, table: Any) -> bool:
    """Whether a queue's key_source names another table, or a part of it, that is no parent."""
    name = table.full_table_name
    if name == queue.table.full_table_name or name in queue.table.parents():
        return False
    return name in queue.source or f"{name[:-1]}__" in queue.source


def _depends(queue: Filling, other: Filling) -> bool:
    if other is queue:
        return False
    dependencies = queue.connection.dependencies
    return other.table.full_table_name in dependencies.ancestors(queue.table.full_table_name)


def _closure(index: int, upstream: dict[int, set[int]]) -> set[int]:
    """A queue and all that it depends on."""
    found: set[int] = set()
    todo = [index]
    while todo:
        if (one := todo.pop()) not in found:
            found.add(one)
            todo += upstream[one]
    return found
