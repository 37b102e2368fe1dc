"""Bind the table classes to schemas of the connected server."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any

import datajoint as dj

from workflow.pipeline import exp2, img, lab, stimanal
from workflow.pipeline.binding import bind
from workflow.pipeline.discovery import discover
from workflow.pipeline.float_blobs import store_floats_uncompressed
from workflow.pipeline.legacy_blobs import attach_blob_codec
from workflow.pipeline.legacy_lineage import attach_lineage
from workflow.settings import Settings

UPSTREAM: dict[str, ModuleType] = {"lab": lab, "exp2": exp2, "img": img, "stimanal": stimanal}

#: Where the modules of computed tables are; each module has a schema of its own.
PACKAGES = ("workflow.pipeline",)

#: Upstream tables that not every database has.
OPTIONAL = {"ROIdeltaF", "ROISpikes"}


class UpstreamError(LookupError):
    """An upstream schema or table is missing; the message is one line."""


#: Statements that try to take, and give back, the lock of `alone`.
ALONE = {
    "mysql": ("SELECT GET_LOCK('datajoint-round', 0)", "SELECT RELEASE_LOCK('datajoint-round')"),
    "postgresql": ("SELECT pg_try_advisory_lock(20260101)", "SELECT pg_advisory_unlock(20260101)"),
}
PATIENCE = 120.0  # s, with others who declare tables


@cache
def served() -> dict[str, ModuleType]:
    """Give the modules whose Computed and Imported tables are served, parents before children.

    Raises
    ------
    ModuleError
        If one of them cannot be used.
    """
    return discover(PACKAGES, leave_out=UPSTREAM.values())


def activate(settings: Settings, deadline: float = math.inf) -> None:
    """Bind every table class to its schema; declare what is ours.

    Upstream tables are declared only where the settings ask for it (a sandbox); elsewhere they are
    read as the database has them, whatever their tier, and never changed.

    Parameters
    ----------
    settings : Settings
        Names the schemas.
    deadline : float
        Until when others who declare tables are waited for at most, as ``time.monotonic()`` counts.

    Raises
    ------
    UpstreamError
        If the database lacks an upstream schema or table.
    ModuleError
        If a module of ours cannot be used.
    """
    store_floats_uncompressed()
    served()  # before anything is declared
    with alone(dj.conn(), deadline):
        _activate(settings)


@contextmanager
def alone(connection: dj.Connection, deadline: float = math.inf) -> Iterator[None]:
    """Let one process at a time declare tables: two that do it at once trip over each other.

    The others ask again and again: a client that waits within the server hears no signal meanwhile.
    """
    take, give = ALONE[connection.adapter.backend]
    began = time.monotonic()
    given_up_at = min(began + PATIENCE, deadline)
    while not connection.query(take).fetchone()[0]:
        if time.monotonic() >= given_up_at:
            waited = time.monotonic() - began
            raise UpstreamError(
                f"another process has been declaring tables for {waited:.3g} s: try again when it has ended"
            )
        time.sleep(0.1)
    try:
        yield
    finally:
        connection.query(give)


def _activate(settings: Settings) -> None:
    if not settings.declare_upstream:
        attach_blob_codec(settings.upstream.values())
        attach_lineage(dj.conn(), settings.upstream.values())
    for name, module in UPSTREAM.items():
        if settings.declare_upstream:
            bind(module.schema, settings.upstream[name])
        else:
            _read(module, name, settings.upstream[name])
    for name, module in served().items():
        bind(module.schema, f"{settings.prefix}{name}")


def _read(module: ModuleType, name: str, schema_name: str) -> None:
    """Replace a module's upstream classes by those that the database describes."""
    try:
        found = dj.VirtualModule(name, schema_name)
    except dj.DataJointError as error:
        raise UpstreamError(
            f"the upstream schema {schema_name!r} cannot be read ({' '.join(str(error).split())}): "
            f"set WORKFLOW_SCHEMA_{name.upper()} to the lab's schema, or load sample data with "
            "WORKFLOW_UPSTREAM=declare"
        ) from error
    wanted = [key for key, value in vars(module).items() if _is_table(value)]
    missing = [key for key in wanted if not hasattr(found, key) and key not in OPTIONAL]
    if missing:
        raise UpstreamError(
            f"the upstream schema {schema_name!r} lacks the table(s) {', '.join(missing)}: "
            f"check WORKFLOW_SCHEMA_{name.upper()}"
        )
    for key in wanted:
        setattr(module, key, getattr(found, key, None))


def _is_table(value: Any) -> bool:
    return inspect.isclass(value) and issubclass(value, dj.Table)
