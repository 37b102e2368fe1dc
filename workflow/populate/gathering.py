"""Tables that gather many rows of others wait until these are complete.

A foreign key names one row, which is there before a key becomes due. But a ``key_source`` such as
``Subject & Event`` offers a subject as soon as it has its first event; computed then, and never again, its
row would lack all later ones. So such a key is due only when nothing is left to do upstream.
"""

from __future__ import annotations

from collections.abc import Sequence

from workflow.populate.filling import Filling


def let_gatherers_wait(queues: Sequence[Filling]) -> None:
    """Tell each queue for which of the others it waits.

    Parameters
    ----------
    queues : sequence of Filling
        All tables of a run, their dependencies loaded.
    """
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
    if other is queue:
        return False
    name = other.table.full_table_name
    return (
        (name in queue.source or f"{name[:-1]}__" in queue.source)  # itself, or one of its parts
        and not set(other.names) <= set(queue.names)
        and name not in queue.table.parents()
    )


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
