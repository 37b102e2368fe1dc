"""Serve the tables of any pipeline, not only ours."""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType

import datajoint as dj

from workflow.pipeline.binding import bind
from workflow.pipeline.discovery import ModuleError, discover


def load_modules(names: Iterable[str], prefix: str) -> dict[str, ModuleType]:
    """Import modules and bind their schemas.

    A module's ``schema = dj.Schema("name")`` stays as it is; a ``dj.Schema()`` without a name is bound to the
    prefix and the last part of the module's name.

    Parameters
    ----------
    names : iterable of str
        Modules, or packages, which stand for the modules in them.
    prefix : str
        First part of the schemas' names.

    Returns
    -------
    dict of str to module
        By the last part of their names.

    Raises
    ------
    ModuleError
        If a module cannot be imported, or none has a schema.
    """
    names = list(names)
    try:
        modules = discover(names)
    except ModuleError as error:
        raise ModuleError(f"WORKFLOW_MODULES: {error} (is it on PYTHONPATH?)") from error
    if not modules:
        raise ModuleError(
            f"WORKFLOW_MODULES: no module among {', '.join(names)} has a 'schema = dj.Schema(…)'"
        )
    for label, module in modules.items():
        for schema in vars(module).values():
            if isinstance(schema, dj.Schema):
                bind(schema, f"{prefix}{label}")
    return modules
