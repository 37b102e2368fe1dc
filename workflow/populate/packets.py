"""Tell a statement that is too large for a server from a connection that was lost.

MySQL cuts the connection when a statement exceeds ``max_allowed_packet``, and the client sees only that.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import datajoint as dj

#: Bytes may be sent as two hexadecimal digits each.
_DIGITS = 2


def weigh_statements(connection: Any) -> None:
    """Remember how many bytes the statements carried with which a connection was lost, the largest."""
    execute = connection._execute_query
    connection.lost_bytes = 0

    def weighed(cursor: Any, query: str, values: Any, suppress_warnings: bool) -> None:
        try:
            execute(cursor, query, values, suppress_warnings)
        except dj.errors.LostConnectionError:
            connection.lost_bytes = max(connection.lost_bytes, sum(_sizes(values)))
            raise

    connection._execute_query = weighed


def _sizes(values: Any) -> Iterable[int]:
    items = values.values() if isinstance(values, dict) else values or ()
    return (len(item) for item in items if isinstance(item, bytes | bytearray | str))


def too_large(connection: Any) -> str:
    """Say why the statement that was lost cannot succeed; empty if it is not for its size."""
    carried = getattr(connection, "lost_bytes", 0)
    if not carried or connection.adapter.backend != "mysql":
        return ""
    (limit,) = connection.query("SELECT @@max_allowed_packet").fetchone()
    connection.lost_bytes = 0
    if _DIGITS * carried < int(limit):
        return ""
    return (
        f"a statement with {carried / 2**20:.0f} MiB of data is too large for the server, whose "
        f"max_allowed_packet is {int(limit) / 2**20:g} MiB (bytes may be sent as two): insert fewer rows "
        "at a time, or smaller ones"
    )
