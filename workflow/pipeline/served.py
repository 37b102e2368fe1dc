"""Serve the tables of any pipeline, not only ours."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from types import ModuleType

import datajoint as dj


class ModuleError(ImportError):
    """A module that is to be served cannot be; the message is one line."""


def load_modules(names: Iterable[str], prefix: str) -> dict[str, ModuleType]:
    """Import modules and bind their schemas.

    A module's ``dj.Schema("name")`` stays as it is; a ``dj.Schema()`` without a name is bound to the prefix
    and the last part of the module's name.

    Parameters
    ----------
    names : iterable of str
        As Python imports them.
    prefix : str
        First part of the schemas' names.

    Returns
    -------
    dict of str to module
        By the last part of their names, or by the whole name where two share that.

    Raises
    ------
    ModuleError
        If a module cannot be imported.
    """
    names = list(names)
    short = [name.rpartition(".")[2] for name in names]
    modules: dict[str, ModuleType] = {}
    for name, last in zip(names, short, strict=True):
        try:
            module = importlib.import_module(name)
        except dj.DataJointError:
            raise
        except Exception as error:
            raise ModuleError(
                f"WORKFLOW_MODULES: {name!r} cannot be imported ({type(error).__name__}: {error}): "
                "check the name, and that PYTHONPATH leads to it"
            ) from error
        for schema in vars(module).values():
            if isinstance(schema, dj.Schema) and not schema.is_activated():
                schema.activate(f"{prefix}{last}")
        modules[last if short.count(last) == 1 else name] = module
    return modules
