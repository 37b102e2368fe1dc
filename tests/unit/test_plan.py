"""Choosing tables and parsing restrictions, without a database."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from workflow.populate.plan import RequestError, parse_restriction, select

TABLES = {
    label: SimpleNamespace(database=f"workflow_{label.partition('.')[0]}")
    for label in ("svd.PopulationSVD", "svd.AreaSVD", "lds.LDS")
}


class _KeySource:
    heading = SimpleNamespace(names=["subject_id", "session"])

    def __and__(self, restriction: Any) -> Any:
        return []


QUERIES = {"svd.PopulationSVD": SimpleNamespace(key_source=_KeySource())}


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        ([], ["svd.PopulationSVD", "svd.AreaSVD", "lds.LDS"]),
        (["svd.*"], ["svd.PopulationSVD", "svd.AreaSVD"]),
        (["LDS"], ["lds.LDS"]),
        (["workflow_svd.AreaSVD", "*_lds.*"], ["svd.AreaSVD", "lds.LDS"]),
        (["lds.LDS", "*SVD"], ["svd.PopulationSVD", "svd.AreaSVD", "lds.LDS"]),
    ],
)
def test_tables_are_chosen_by_name_or_pattern_in_their_own_order(names: list[str], chosen: list[str]) -> None:
    assert list(select(TABLES, names)) == chosen


def test_an_unknown_table_is_named_together_with_those_there_are() -> None:
    with pytest.raises(RequestError, match=r"--tables svd\.Nothing: .*svd\.PopulationSVD, svd\.AreaSVD"):
        select(TABLES, ["svd.AreaSVD", "svd.Nothing"])


def test_restrictions_in_sql_and_json() -> None:
    assert parse_restriction("  ", QUERIES) == []
    assert parse_restriction("subject_id = 1", QUERIES) == ["subject_id = 1"]
    assert parse_restriction('{"subject_id": 1}', QUERIES) == [{"subject_id": 1}]
    assert parse_restriction('[{"session": 1}, {"session": 2}]', QUERIES) == [
        [{"session": 1}, {"session": 2}]
    ]


@pytest.mark.parametrize("text", ['{"subject_id": 1', "[]", "{}", "[1]", '[{"session": 1}, {}]'])
def test_malformed_json_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="--where"):
        parse_restriction(text, QUERIES)


def test_an_unknown_attribute_is_refused() -> None:
    with pytest.raises(RequestError, match=r"no key attribute 'animal'; it has session, subject_id"):
        parse_restriction('{"animal": 1}', QUERIES)
