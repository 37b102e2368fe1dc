"""The jobs table of one computed table: its names, its keys, and the pieces of SQL about them.

DataJoint's own jobs table stays the queue: other clients see what is pending, reserved and failed. What is
reserved by us carries the number of our supervisor in ``connection_id``; such numbers are far above those
that servers give to connections.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from datajoint.codecs import decode_attribute

#: Supervisors have numbers above this one; servers number their connections from 1.
FIRST_CREW = 2**40

_ATTEMPT = re.compile(r"attempt (\d+): ")


class TableError(TypeError):
    """A table that cannot be computed by a queue; the message is one line."""


@dataclass(frozen=True)
class Job:
    """One claimed key.

    Attributes
    ----------
    table : int
        Which table of the run.
    raw : tuple
        Key values as the server's client gives and takes them.
    key : dict
        The key as ``make`` gets it.
    attempts : int
        How many earlier attempts ended with the death of their worker.
    suspect : bool
        Whether an earlier attempt did not come to an end.
    """

    table: int
    raw: tuple[Any, ...]
    key: dict[str, Any]
    attempts: int = 0
    suspect: bool = False


class JobsTable:
    """What every statement about a jobs table needs.

    Parameters
    ----------
    index : int
        The table's place in the run.
    label : str
        ``module.Class``.
    table : datajoint.Table
        A Computed or Imported table.
    where : list
        Restriction of its keys.
    """

    def __init__(self, index: int, label: str, table: Any, where: list[Any]) -> None:
        self.index, self.label, self.table = index, label, table
        self.jobs = table.jobs
        self.connection = table.connection
        self.names: list[str] = list(self.jobs.primary_key)
        self._attributes = [self.jobs.heading[name] for name in self.names]
        self._quote = self.connection.adapter.quote_identifier
        self._jobs, self._target = self.jobs.full_table_name, table.full_table_name
        self._own = ", ".join(self._quote(name) for name in self.names)
        self.this_key = " AND ".join(f"{self._quote(name)} = %s" for name in self.names)
        everything = table._jobs_to_do(())
        missing = [name for name in self.names if name not in everything.primary_key]
        if missing:
            raise TableError(
                f"{label}: its key_source lacks {', '.join(missing)}, which its jobs table needs: "
                "let key_source give one row per call of make"
            )
        self.source = self._keys_of(everything)
        self._wanted = self._keys_of(table._jobs_to_do(tuple(where))) if where else ""

    def _keys_of(self, query: Any) -> str:
        """A SELECT of the queue's keys, each once."""
        select: str = query.make_sql()
        if set(query.primary_key) == set(self.names):
            return select
        return f"SELECT DISTINCT {self._own} FROM ({select}) AS d"

    def same(self, left: str, right: str) -> str:
        """Join condition on the keys of two aliases or table names."""
        return " AND ".join(
            f"{left}.{self._quote(name)} = {right}.{self._quote(name)}" for name in self.names
        )

    def _among(self, select: str, other: str) -> str:
        """Whether the key of ``other`` is among those that a SELECT gives."""
        return f"EXISTS (SELECT 1 FROM ({select}) AS s WHERE {self.same('s', other)})"

    def _done(self, other: str) -> str:
        return f"EXISTS (SELECT 1 FROM {self._target} AS t WHERE {self.same('t', other)})"

    def _matching(self, other: str) -> str:
        return f" AND {self._among(self._wanted, other)}" if self._wanted else ""

    def _query(self, statement: str, *values: Any) -> Any:
        return self.connection.query(statement, values)

    def _job(self, raw: tuple[Any, ...], message: str) -> Job:
        return Job(self.index, raw, self._key(raw), attempts_of(message), bool(message))

    def _key(self, raw: tuple[Any, ...]) -> dict[str, Any]:
        return {
            name: decode_attribute(attribute, value, connection=self.connection)
            for name, attribute, value in zip(self.names, self._attributes, raw, strict=True)
        }


def attempts_of(message: str) -> int:
    """How many attempts a jobs table's message tells of."""
    found = _ATTEMPT.match(message or "")
    return int(found.group(1)) if found else 0
