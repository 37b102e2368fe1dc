"""DataJoint's own jobs tables: what failed, and what to put back into the queue."""

from __future__ import annotations

from typing import Any

_LIVE_CONNECTIONS = {
    "mysql": "SELECT id FROM information_schema.processlist",
    "postgresql": "SELECT pid FROM pg_stat_activity",
}


def matching(query: Any, table: Any, where: list[Any]) -> Any:
    """Restrict a query on the jobs table by a condition on the table's keys.

    The jobs table has no lineage of its own, hence the natural match.
    """
    if not where:
        return query
    return query.restrict((table.key_source & where[0]).proj(), semantic_check=False)


def failed(table: Any, where: list[Any]) -> Any:
    """Keys whose last attempt failed, with their error messages."""
    return matching(table.jobs.errors, table, where)


def requeue(table: Any, where: list[Any]) -> None:
    """Make failed keys, and keys whose worker is gone, due again.

    A worker is gone when the server no longer has the connection that reserved the key.
    """
    failed(table, where).delete_quick()
    reserved = set(table.jobs.reserved.to_arrays("connection_id").tolist())  # before we ask who is alive
    statement = _LIVE_CONNECTIONS[table.connection.adapter.backend]
    gone = reserved - {row[0] for row in table.connection.query(statement).fetchall()}
    if gone:
        listed = ", ".join(str(int(number)) for number in gone)
        (table.jobs.reserved & f"connection_id in ({listed})").delete_quick()


def release(table: Any, key: dict[str, Any]) -> None:
    """Put one key back into the queue: its computation was interrupted, it did not fail."""
    (table.jobs & key & "status in ('reserved', 'error')").delete_quick()
