"""The runner of the tests does what GitHub does: expressions, conditions, files of values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from expressions import ExpressionError, Expressions, hash_files
from jobs import WorkflowError, read_file_of_values

CONTEXTS: dict[str, Any] = {
    "github": {"actor": "Anna", "ref_name": "main"},
    "secrets": {"main_instance_id": "i-1", "EMPTY": ""},
    "vars": {},
    "inputs": {"deadline": 24, "follow": True, "none": None},
    "matrix": {"worker": "main"},
}


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("github.actor == 'anna'", True),
        ("github.actor != 'anna'", False),
        ("secrets[format('{0}_instance_id', matrix.worker)]", "i-1"),
        ("secrets.MAIN_INSTANCE_ID", "i-1"),
        ("secrets.absent", None),
        ("vars.ROLE || 'default'", "default"),
        ("!vars.ROLE && secrets.main_instance_id || ''", "i-1"),
        ("secrets.EMPTY && 'set' || ''", ""),
        ("inputs.deadline > 23 && inputs.deadline <= 24", True),
        ("inputs.none == ''", True),
        ("'it''s'", "it's"),
        ('fromJSON(\'["a", "b"]\')[1]', "b"),
        ("contains('Hello', 'ELL')", True),
        ("contains(fromJSON('[\"ab\"]'), 'a')", False),
        ("startsWith(github.ref_name, 'MA') && endsWith('ab', 'b')", True),
        ("join(fromJSON('[1, 2]'), '-')", "1-2"),
        ("!(true && false)", True),
    ],
)
def test_expressions(source: str, value: Any) -> None:
    assert Expressions(CONTEXTS).value(source) == value


def test_templates_keep_types_or_become_text() -> None:
    expressions = Expressions(CONTEXTS)
    assert expressions.fill("${{ inputs.deadline }}") == 24
    assert (
        expressions.fill("in ${{ inputs.deadline }} h, ${{ inputs.follow }}, ${{ vars.x }}.")
        == "in 24 h, true, ."
    )
    assert expressions.fill({"a": ["${{ '}}' }}"]}) == {"a": ["}}"]}


@pytest.mark.parametrize("source", ["nothing.x", "unheard('a')", "'a", "(1", "1 2", "github ="])
def test_what_github_would_refuse_is_refused(source: str) -> None:
    with pytest.raises(ExpressionError):
        Expressions(CONTEXTS).value(source)


@pytest.mark.parametrize(
    ("condition", "status", "runs"),
    [
        ("true", "success", True),
        ("true", "failure", False),
        ("always()", "cancelled", True),
        ("failure()", "failure", True),
        ("always() && matrix.worker == 'other'", "success", False),
        ("matrix.worker == 'main'", "cancelled", False),
        ("${{ 'always()' == '' || cancelled() }}", "cancelled", True),
    ],
)
def test_conditions_know_the_status(condition: str, status: str, runs: bool) -> None:
    functions = {
        "always": lambda: True,
        "success": lambda: status == "success",
        "failure": lambda: status == "failure",
        "cancelled": lambda: status == "cancelled",
    }
    assert Expressions(CONTEXTS, functions).condition(condition) == runs


def test_files_of_values(tmp_path: Path) -> None:
    file = tmp_path / "values"
    file.write_text("a=1=2\nb<<END\nline\nc=3\nEND\n\nd=\n")
    assert read_file_of_values(file) == {"a": "1=2", "b": "line\nc=3", "d": ""}
    file.write_text("b<<END\nline\n")
    with pytest.raises(WorkflowError, match="b has no end END"):
        read_file_of_values(file)


def test_hash_of_files(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("1")
    first = hash_files(tmp_path, "o*")
    (tmp_path / "one").write_text("2")
    assert first != hash_files(tmp_path, "o*")
    assert hash_files(tmp_path, "none") == ""
