"""Know where the attributes of older clients' tables come from.

DataJoint 2 joins tables only on attributes of one origin, which it keeps in a table of each schema. Schemas
of older clients have no such table, and to make one would be to write into them. What it would hold follows
from the foreign keys, so it is worked out from those and kept in memory.
"""

from collections.abc import Iterable
from functools import wraps
from typing import Any

import datajoint as dj
from datajoint import lineage
from datajoint.heading import Heading

#: Schema, table and attribute.
Attribute = tuple[str, str, str]

_parents: dict[Attribute, Attribute] = {}
_schemas: set[str] = set()


def attach_lineage(connection: dj.Connection, schema_names: Iterable[str]) -> None:
    """Derive the origins of attributes in some schemas from their foreign keys.

    What a schema's own table of origins says comes first. Call this before the tables are first used; calling
    it again is harmless.

    Parameters
    ----------
    connection : datajoint.Connection
        Must be able to see the schemas. Only MySQL servers have older clients' schemas.
    schema_names : iterable of str
        Names of the schemas on the server.
    """
    names = list(schema_names)
    if connection.adapter.backend != "mysql":
        return
    rows = connection.query(
        "SELECT table_schema, table_name, column_name, referenced_table_schema, referenced_table_name, "
        "referenced_column_name FROM information_schema.key_column_usage "
        "WHERE referenced_table_name IS NOT NULL AND table_schema IN %s ORDER BY 1, 2, 3, 4, 5, 6",
        (tuple(names),),
    )
    _parents.update({tuple(row[:3]): tuple(row[3:]) for row in rows})
    _schemas.update(names)
    if not hasattr(lineage.get_lineage, "__wrapped__"):
        lineage.get_lineage = _with_origins(lineage.get_lineage)
        Heading._init_from_database = _with_lineage(Heading._init_from_database)


def origin(attribute: Attribute) -> str:
    """Follow the foreign keys of an attribute to where it was first defined."""
    seen = set()
    while attribute in _parents and attribute not in seen:
        seen.add(attribute)
        attribute = _parents[attribute]
    return ".".join(attribute)


def _with_origins(get_lineage: Any) -> Any:
    """Extend the function that says what a new table's attributes inherit."""

    @wraps(get_lineage)
    def get_or_derive(connection: Any, schema: str, table: str, name: str) -> Any:
        known = get_lineage(connection, schema, table, name)
        return known or (origin((schema, table, name)) if schema in _schemas else None)

    return get_or_derive


def _with_lineage(read_heading: Any) -> Any:
    """Extend the method that reads a table's heading from the server."""

    @wraps(read_heading)
    def read_and_derive(heading: Any) -> None:
        read_heading(heading)
        schema, table = (heading.table_info[name] for name in ("database", "table_name"))
        if schema not in _schemas:
            return
        heading._lineage_available = True
        heading._attributes = {
            name: attribute._replace(lineage=attribute.lineage or origin((schema, table, name)))
            if attribute.in_key or (schema, table, name) in _parents
            else attribute
            for name, attribute in heading._attributes.items()
        }

    return read_and_derive
