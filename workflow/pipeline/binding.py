"""Bind the table classes of a module to a schema on the server."""

from __future__ import annotations

import datajoint as dj


def bind(schema: dj.Schema, name: str) -> None:
    """Activate a schema wholly or not at all; one that is active stays as it is.

    DataJoint takes a schema for active from its first statement on. If the connection were lost after that, a
    second try would find nothing to do, and some tables would never be bound.

    Parameters
    ----------
    schema : datajoint.Schema
        What the classes are decorated with.
    name : str
        Its name on the server.
    """
    if schema.is_activated():
        return
    try:
        schema.activate(name)
    except BaseException:
        schema.database = None
        raise
