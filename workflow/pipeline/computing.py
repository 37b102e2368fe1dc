"""What every computed table shares: one shape of ``make`` and one way to insert."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

Key = dict[str, Any]

#: Largest INSERT statement; well below the 64 MiB that MySQL servers accept by default, since the
#: client may write two characters for each byte.
INSERT_BYTES = 8 * 2**20


class Inputs(Protocol):
    """What a computation reads."""

    @property
    def digest(self) -> str:
        """A hash of everything that was read."""


class ThreeSteps:
    """Mixin for Computed tables: read, compute outside any transaction, store.

    DataJoint runs ``make`` twice: once to read and compute, and once inside the transaction to
    compare what would be read now with what was read then. It compares what the first ``yield``
    gives, and comparing whole arrays takes minutes; so a digest stands for them.
    """

    def read(self, key: Key) -> Inputs:
        """Fetch everything that the computation needs."""
        raise NotImplementedError

    def compute(self, inputs: Any) -> Any:
        """Compute without touching the database."""
        raise NotImplementedError

    def store(self, key: Key, result: Any) -> None:
        """Insert the master's row and its parts."""
        raise NotImplementedError

    def make(self, key: Key) -> Generator[Any, Any, None]:
        """Compute one key."""
        inputs = self.read(key)
        result = yield (inputs.digest,)
        if result is None:
            result = self.compute(inputs)
            yield result
        self.store(key, result)
        yield


def insert_chunked(table: Any, rows: Iterable[Mapping[str, Any]]) -> None:
    """Insert rows in statements of bounded size.

    Parameters
    ----------
    table : datajoint.Table
        Where to insert.
    rows : iterable of mapping
        The rows; NumPy arrays are weighed by their bytes.
    """
    chunk: list[Mapping[str, Any]] = []
    size = 0
    for row in rows:
        weight = sum(value.nbytes if isinstance(value, np.ndarray) else 64 for value in row.values())
        if chunk and size + weight > INSERT_BYTES:
            _insert(table, chunk)
            chunk, size = [], 0
        chunk.append(row)
        size += weight
    if chunk:
        _insert(table, chunk)


def _insert(table: Any, chunk: Sequence[Mapping[str, Any]]) -> None:
    table.insert(chunk)
