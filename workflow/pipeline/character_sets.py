"""Declare text columns that refer to another table in that table's character set.

MySQL accepts a foreign key on text only between columns of one character set and collation, and a server
takes those of a new column from its own defaults, which have changed over the years: the lab's tables, made
when latin1 was usual, could not be referred to today. Comparing text of two collations is slow, or refused.
The lab's tables stay as they are, and so do our own columns: free text needs all characters.
"""

import re
from collections.abc import Iterable, Mapping
from functools import wraps
from typing import Any

import datajoint as dj
from datajoint import table

#: Types of columns that have a character set.
_TEXT = r"(?:(?:var)?char\s*\(\d+\)|enum\s*\((?:'(?:[^']|'')*'|[^'])*?\))"

#: A column: the full name of its table, and its own.
Column = tuple[str, str]


def match_character_sets() -> None:
    """Change how this process declares tables; calling it again is harmless."""
    if not hasattr(table.declare, "__wrapped__"):
        table.declare = _matching(table.declare)


def _matching(declare: Any) -> Any:
    """Extend the function that turns a definition into SQL."""

    @wraps(declare)
    def declare_and_match(name: str, definition: str, context: Any, adapter: Any, **options: Any) -> Any:
        sql, stores, primary_key, references, *ddl = declare(name, definition, context, adapter, **options)
        if adapter.backend == "mysql":
            columns = {**_queued(name, primary_key), **references}
            sql = with_character_sets(sql, columns, _character_sets(columns.values()))
        return sql, stores, primary_key, references, *ddl

    return declare_and_match


def _queued(name: str, primary_key: Iterable[str]) -> dict[str, Column]:
    """The columns that a jobs table's key is compared with, though it does not refer to them."""
    schema, separator, target = name.rstrip("`").partition("`.`~~")
    tables = [f"{schema}`.`{tier}{target}`" for tier in ("_", "__")] if separator else []
    declared = [found for found in tables if dj.FreeTable(dj.conn(), found).is_declared]
    return {column: (found, column) for found in declared for column in primary_key}


def _character_sets(columns: Iterable[Column]) -> dict[Column, str]:
    """Ask the server; columns without a character set are left out."""
    tables = sorted({name for name, _ in columns})
    if not tables:
        return {}
    rows = dj.conn().query(
        "SELECT CONCAT('`', table_schema, '`.`', table_name, '`'), column_name, character_set_name, "
        "collation_name FROM information_schema.columns "
        "WHERE collation_name IS NOT NULL AND (table_schema, table_name) IN %s",
        (tuple(tuple(name.strip("`").split("`.`")) for name in tables),),
    )
    return {
        (name, column): f"CHARACTER SET {charset} COLLATE {collation}"
        for name, column, charset, collation in rows
    }


def with_character_sets(sql: str, columns: Mapping[str, Column], known: Mapping[Column, str]) -> str:
    """Write the character sets of the columns that are referred to into a CREATE TABLE statement.

    Parameters
    ----------
    sql : str
        As DataJoint writes it, one column per line.
    columns : mapping of str to (str, str)
        What each of its columns refers to.
    known : mapping of (str, str) to str
        ``CHARACTER SET … COLLATE …`` of those that have one.
    """
    for name, column in columns.items():
        if column in known:
            sql = re.sub(rf"^(`{name}` {_TEXT})", rf"\1 {known[column]}", sql, count=1, flags=re.M | re.I)
    return sql
