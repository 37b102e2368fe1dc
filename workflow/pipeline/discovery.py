"""Find the modules that hold computed tables, so that none has to be registered."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Container, Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from types import ModuleType

import datajoint as dj


class ModuleError(ImportError):
    """A module of tables cannot be used; the message is one line."""


def discover(names: Iterable[str], leave_out: Container[ModuleType] = ()) -> dict[str, ModuleType]:
    """Import modules and keep those that have a schema.

    Parameters
    ----------
    names : iterable of str
        Full names of modules, or of packages, which stand for the modules in them.
    leave_out : container of module
        Modules that are not ours to serve.

    Returns
    -------
    dict of str to module
        The last part of each module's name, and the module; a module comes after those that it imports,
        as tables come after those that they refer to.

    Raises
    ------
    ModuleError
        If a module cannot be imported, two have one name, or two import each other.
    """
    found: dict[str, ModuleType] = {}
    for module in map(_import, _expand(names)):
        if not isinstance(getattr(module, "schema", None), dj.Schema) or module in leave_out:
            continue
        label = module.__name__.rpartition(".")[2]
        if found.setdefault(label, module) is not module:
            raise ModuleError(
                f"the modules {found[label].__name__} and {module.__name__} would share the schema "
                f"{label!r}: rename one of them"
            )
    return _parents_first(found)


def _expand(names: Iterable[str]) -> Iterator[str]:
    for name in names:
        yield name
        for entry in pkgutil.iter_modules(getattr(_import(name), "__path__", [])):
            yield f"{name}.{entry.name}"


def _import(name: str) -> ModuleType:
    try:
        return import_module(name)
    except Exception as error:
        cause = " ".join(str(error).split())
        raise ModuleError(
            f"the module {name} cannot be imported: {type(error).__name__}: {cause}: correct it and try again"
        ) from error


def _parents_first(modules: dict[str, ModuleType]) -> dict[str, ModuleType]:
    labels = {module.__name__: label for label, module in modules.items()}
    graph = {
        label: sorted(labels[name] for name in _references(module) & labels.keys() - {module.__name__})
        for label, module in sorted(modules.items())
    }
    try:
        return {label: modules[label] for label in TopologicalSorter(graph).static_order()}
    except CycleError as error:
        circle = " → ".join(reversed(error.args[1]))
        raise ModuleError(
            f"modules of tables import each other: {circle}: let one of them go first"
        ) from None


def _references(module: ModuleType) -> set[str]:
    """Names of the modules that a module mentions: imported, or with a class imported from them."""
    values = vars(module).values()
    classes = {value.__module__ for value in values if inspect.isclass(value)}
    return classes | {value.__name__ for value in values if inspect.ismodule(value)}
