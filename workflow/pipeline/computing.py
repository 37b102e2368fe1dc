"""What every computed table shares: one shape of ``make`` and one way to insert."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Protocol

import datajoint as dj
import numpy as np
from datajoint.blob import pack

from workflow.pipeline.traces import MissingError, unasked

Key = dict[str, Any]

#: Rows that go into one INSERT statement, in bytes.
INSERT_BYTES = 8 * 2**20
#: What a statement holds besides the values.
STATEMENT_OVERHEAD = 4096
#: Longest statement that PostgreSQL reads.
POSTGRESQL_STATEMENT = 2**30 - 1
#: Counted for a number, and for what precedes an array's values.
SMALL_VALUE = 64


class Inputs(Protocol):
    """What a computation reads."""

    @property
    def digest(self) -> str:
        """A hash of everything that it reads, of traces too that have not been fetched yet."""


class ThreeSteps:
    """Mixin for Computed tables: read, compute outside any transaction, store.

    DataJoint runs ``make`` twice: once to read and compute, and once inside the transaction to
    compare what would be read now with what was read then. It compares what the first ``yield``
    gives, and comparing whole arrays takes minutes; so a digest stands for them.
    """

    #: The commit that is running, for the column ``code_commit``.
    code_commit: ClassVar[str] = ""

    @property
    def hint(self: Any) -> str:
        """Why nothing has ever been due, where that is an oversight; empty if it is not."""
        if self.keys(limit=1):
            return ""
        params = [table for table in self.parents(as_objects=True) if "activity" in table.heading.names]
        return "; ".join(filter(None, map(unasked, params)))

    def read(self, key: Key) -> Inputs:
        """Fetch what the computation needs, but for traces: an `Activity` fetches them when they are used."""
        raise NotImplementedError

    def compute(self, inputs: Any) -> Any:
        """Compute, outside any transaction. Traces are fetched here; nothing is written."""
        raise NotImplementedError

    def store(self, key: Key, result: Any) -> None:
        """Insert the master's row and its parts."""
        raise NotImplementedError

    def make(self, key: Key) -> Generator[Any, Any, None]:
        """Compute one key, or record what it lacks."""
        inputs: Any = None
        try:
            inputs = self.read(key)
            missing = ""
        except MissingError as error:
            missing = str(error)
        result = yield (missing or inputs.digest,)
        if result is None:
            result = missing or self.compute(inputs)
            inputs = None  # or it would still be in memory when everything is read again
            yield result
        inputs = None
        if missing:
            self._skip(key, missing)
        else:
            self.store(key, result)
        yield

    def _skip(self: Any, key: Key, reason: str) -> None:
        """Insert a row without a result: its sizes, of which nothing is known, are 0."""
        needed = [one for one in self.heading.attributes.values() if not one.nullable and one.default is None]
        sizes = {one.name: 0 for one in needed if not one.string}
        self.insert1({**sizes, **key, "skip_reason": reason, "code_commit": self.code_commit})


def insert_chunked(table: Any, rows: Iterable[Mapping[str, Any]]) -> None:
    """Insert rows, as `chunks` gives them, into a table: an instance or a class."""
    table = table() if isinstance(table, type) else table
    for chunk in chunks(table, rows):
        table.insert(chunk)


def chunks(table: Any, rows: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """Divide rows among statements that the server accepts.

    Parameters
    ----------
    table : datajoint.Table
        Where they are to be inserted.
    rows : iterable of mapping
        The rows, taken one by one as they are needed.

    Yields
    ------
    list of mapping

    Raises
    ------
    datajoint.DataJointError
        If a row can never be stored because one of its values is too large; it is not given.
    """
    limit, why = _row_limit(table.connection)
    chunk: list[Mapping[str, Any]] = []
    size = 0
    for row in rows:
        weights = {name: _weight(value) for name, value in row.items()}
        weight = sum(weights.values())
        if weight > limit:
            _require_fits(table, row, limit, why)
        if chunk and size + weight > min(INSERT_BYTES, limit):
            yield chunk
            chunk, size = [], 0
        chunk.append(row)
        size += weight
    if chunk:
        yield chunk


def _row_limit(connection: Any) -> tuple[int, str]:
    """How many bytes a row may have, since a row is never split, and what sets that limit.

    Both clients write each byte of a blob as two hexadecimal digits into the statement.
    """
    if connection.adapter.backend == "mysql":
        packet = int(connection.query("SELECT @@max_allowed_packet").fetchone()[0])
        why = f"half of the server's max_allowed_packet of {packet} bytes: raise that variable on the server"
    else:
        packet = POSTGRESQL_STATEMENT
        why = "half of PostgreSQL's limit of 1 GiB per statement, which cannot be raised"
    return max(packet - STATEMENT_OVERHEAD, 0) // 2, why


def _weight(value: Any) -> int:
    """Bound the bytes of a value from above."""
    if isinstance(value, np.ndarray):
        return int(value.nbytes) + SMALL_VALUE
    if isinstance(value, str | bytes):
        return 4 * len(value) if isinstance(value, str) else len(value)
    if isinstance(value, list | tuple | dict | set):
        return len(pack(value))
    return SMALL_VALUE


def _require_fits(table: Any, row: Mapping[str, Any], limit: int, why: str) -> None:
    """Refuse a row that is too large as it would be stored, that is, compressed."""
    stored = {
        name: len(pack(value)) if isinstance(value, np.ndarray) else _weight(value)
        for name, value in row.items()
    }
    if sum(stored.values()) <= limit:
        return
    largest = max(stored, key=lambda name: stored[name])
    raise dj.DataJointError(
        f"{table.full_table_name}, column {largest}: a value of {stored[largest]} bytes can never be stored, "
        f"because a row may have {limit} bytes here ({why})"
    )
