"""What is due, in which order."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import ModuleType
from typing import Any

import datajoint as dj

from workflow.populate.filling import Filling, count_failed


class RequestError(ValueError):
    """The request makes no sense; the message is one line."""


@dataclass(frozen=True)
class Entry:
    """One computed table and how much of it there is.

    Attributes
    ----------
    label : str
        ``module.Class``.
    due : int
        Keys that can be computed and have no row yet; without those that somebody has parked.
    done : int
        Keys that have a row.
    failed : int
        Due keys whose last attempt failed.
    """

    label: str
    due: int
    done: int
    failed: int


def computed_tables(modules: Mapping[str, ModuleType]) -> dict[str, Any]:
    """Find the Computed and Imported tables of the served modules.

    Parameters
    ----------
    modules : mapping of str to module
        Label of a module and the module, its schema activated.

    Returns
    -------
    dict of str to table
        ``module.Class`` and an instance of the class, parents before children, in an order that is always
        the same.

    Raises
    ------
    RequestError
        If a table was never given to its schema. A class whose name begins with ``_`` is no table.
    """
    classes: dict[str, Any] = {
        f"{name}.{attribute}": value
        for name, module in modules.items()
        for attribute, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, dj.Computed | dj.Imported)
        and value.__module__ == module.__name__
        and not attribute.startswith("_")
    }
    for label, value in classes.items():
        if value.database is None:
            raise RequestError(f"{label} belongs to no schema: write @schema above its class")
    tables = {label: value() for label, value in classes.items()}
    if not tables:
        return {}
    dependencies = next(iter(tables.values())).connection.dependencies
    dependencies.load()
    served = {table.full_table_name for table in tables.values()}
    generation = {name: len(served.intersection(dependencies.ancestors(name))) for name in served}
    return dict(sorted(tables.items(), key=lambda item: (generation[item[1].full_table_name], item[0])))


def select(tables: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Narrow the tables to those that an operator named.

    Parameters
    ----------
    tables : mapping
        As `computed_tables` gives them.
    names : iterable of str
        ``module.Class``, ``Class``, ``schema.Class`` as the server names the schema, or shell patterns of
        these; empty means all.

    Raises
    ------
    RequestError
        If a name matches nothing.
    """
    names = list(names)
    if not names:
        return dict(tables)
    chosen: set[str] = set()
    for name in names:
        matches = [
            label
            for label, table in tables.items()
            if any(fnmatchcase(one, name) for one in _names(label, table))
        ]
        if not matches:
            raise RequestError(f"--tables {name}: no such table; there are: {', '.join(tables)}")
        chosen.update(matches)
    return {label: table for label, table in tables.items() if label in chosen}


def _names(label: str, table: Any) -> tuple[str, str, str]:
    """What a table may be called: its label, its class, and its class in the schema of the server."""
    name = label.rpartition(".")[2]
    return label, name, f"{table.database}.{name}"


def parse_restriction(text: str, tables: Mapping[str, Any]) -> list[Any]:
    """Turn ``--where`` into a DataJoint restriction and try it on every table.

    Parameters
    ----------
    text : str
        An SQL condition (``subject_id = 1``), or JSON: an object, or a list of objects of which one
        must match. Empty means no restriction.
    tables : mapping
        The tables that it will apply to.

    Returns
    -------
    list
        Restrictions to be applied together; empty if none.

    Raises
    ------
    RequestError
        If the text cannot be parsed, or a table lacks an attribute that it names.
    """
    if not text.strip():
        return []
    restriction: Any = text
    if text.lstrip()[0] in "{[":
        restriction = _parse_json(text, tables)
    for label, table in tables.items():
        try:
            len(table.key_source & restriction)
        except Exception as error:
            said = next((part for part in error.args if isinstance(part, str)), "") or str(error)
            cause = said.splitlines()[0] if said else type(error).__name__
            raise RequestError(f"--where {text!r}: not a condition on {label}: {cause}") from error
    return [restriction]


def _parse_json(text: str, tables: Mapping[str, Any]) -> Any:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise RequestError(f"--where {text!r}: not JSON: {error}") from None
    objects = value if isinstance(value, list) else [value]
    if not objects or not all(isinstance(item, dict) and item for item in objects):
        raise RequestError(
            f'--where {text!r}: JSON must be an object such as {{"subject_id": 1}} or a list of them'
        )
    for label, table in tables.items():
        known = set(table.key_source.heading.names)
        for name in (name for item in objects for name in item if name not in known):
            raise RequestError(
                f"--where {text!r}: {label} has no key attribute {name!r}; it has {', '.join(sorted(known))}"
            )
    return value


def plan(tables: Mapping[str, Any], where: list[Any]) -> list[Entry]:
    """Count what is due and done, without changing anything."""
    queues = [Filling(index, label, table, where) for index, (label, table) in enumerate(tables.items())]
    counts = count_failed(queues)
    entries = []
    for queue in queues:
        remaining, total = queue.table.progress(*where)
        failed, parked = (counts.get((queue.index, status), 0) for status in ("error", "ignore"))
        entries.append(Entry(queue.label, max(0, remaining - parked), total - remaining, failed))
    return entries
