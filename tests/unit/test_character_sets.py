"""The character sets of columns that are referred to, in the SQL that declares a table."""

from __future__ import annotations

import pytest

from workflow.pipeline.character_sets import with_character_sets

LATIN = "CHARACTER SET latin1 COLLATE latin1_swedish_ci"
OTHER = ("`lab`.`#kind`", "kind")


@pytest.mark.parametrize(
    "line",
    [
        '`kind` varchar(200) {}NOT NULL COMMENT "varchar(9)"',
        "`kind` CHAR (3){},",
        "`kind` enum('a)b','it''s', 'c'){} NOT NULL",
    ],
)
def test_a_text_column_takes_what_it_refers_to(line: str) -> None:
    sql = "CREATE TABLE `a`.`b` (\n`mankind` varchar(200) NOT NULL,\n" + line
    expected = sql.format(f"{LATIN} " if "{}NOT" in line else f" {LATIN}")
    assert with_character_sets(sql.format(""), {"kind": OTHER}, {OTHER: LATIN}) == expected


def test_what_has_no_character_set_stays_as_it_is() -> None:
    sql = "CREATE TABLE `a`.`b` (\n`number` int NOT NULL,\n`kind` varchar(200) NOT NULL"
    assert with_character_sets(sql, {"number": ("`lab`.`n`", "n"), "kind": OTHER}, {}) == sql
    assert with_character_sets(sql, {"number": OTHER}, {OTHER: LATIN}) == sql
