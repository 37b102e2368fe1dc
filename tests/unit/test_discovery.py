"""Modules of tables are found, ordered and, where they cannot be used, named in one line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import datajoint as dj
import pytest

from workflow.pipeline import exp2, img, lab, schemas, stimanal, svd
from workflow.pipeline.discovery import ModuleError, discover
from workflow.populate.plan import RequestError, computed_tables

HEAD = "import datajoint as dj\nschema = dj.Schema()\n"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Make packages of modules, importable until the end of the test."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def make(name: str = "some_analyses", **modules: str) -> str:
        folder = tmp_path / name
        folder.mkdir()
        for module, text in {"__init__": "", **modules}.items():
            (folder / f"{module}.py").write_text(text)
        return name

    yield make
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_our_modules_are_served_and_the_labs_are_not() -> None:
    """Whatever has a schema is found; what the lab owns and what has none is left out."""
    found = schemas.served()
    assert found["svd"] is svd
    assert not {lab, exp2, img, stimanal} & set(found.values())
    assert "computing" not in found
    for label, module in found.items():
        assert module.__name__ == f"workflow.pipeline.{label}"


def test_parents_come_before_children_whatever_their_names(package: Callable[..., str]) -> None:
    """Modules are ordered by what they import: a module, or a class out of it."""
    name = package(
        a="from some_analyses import b\n" + HEAD,
        b="from some_analyses.c import Parent\n" + HEAD,
        c=HEAD + "class Parent: ...\n",
        helpers="x = 1\n",
        other="schema = 'no schema of DataJoint'\n",
    )
    assert list(discover([name])) == ["c", "b", "a"]
    assert list(discover([f"{name}.b"])) == ["b"]
    left = discover([name], leave_out=[sys.modules[f"{name}.c"]])
    assert list(left) == ["b", "a"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("def broken(:\n", "the module some_analyses.bad cannot be imported: SyntaxError: "),
        ("import no_such_thing_at_all\n", "ModuleNotFoundError: No module named 'no_such_thing_at_all'"),
        ("raise ValueError('two\\nlines')\n", "ValueError: two lines"),
    ],
)
def test_a_module_that_cannot_be_imported_is_named(
    package: Callable[..., str], text: str, complaint: str
) -> None:
    """One line: which module, and why."""
    name = package(bad=text, good=HEAD)
    with pytest.raises(ModuleError) as refused:
        discover([name])
    assert complaint in str(refused.value)
    assert "\n" not in str(refused.value)


def test_names_that_clash_and_circles_are_refused(package: Callable[..., str]) -> None:
    """Two modules cannot share a schema, and of two modules one must come first."""
    first, second = package("first", lds=HEAD), package("second", lds=HEAD)
    with pytest.raises(ModuleError, match=r"first\.lds and second\.lds would share the schema 'lds'"):
        discover([first, second])
    circle = package("circle", a=HEAD + "import circle.b as b\n", b=HEAD + "import circle.a as a\n")
    with pytest.raises(ModuleError, match=r"import each other: (a → b → a|b → a → b)"):
        discover([circle])


def test_a_table_without_its_schema_is_named() -> None:
    """A forgotten decorator is said, instead of a table that is silently not there."""

    class Forgotten(dj.Computed):
        """Nobody decorated it."""

    module = SimpleNamespace(__name__=__name__, Forgotten=Forgotten, _Hidden=Forgotten)
    with pytest.raises(RequestError, match=r"rates\.Forgotten belongs to no schema: write @schema"):
        computed_tables({"rates": module})  # type: ignore[dict-item]
