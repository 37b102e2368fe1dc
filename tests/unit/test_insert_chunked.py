"""Statements stay below what the server accepts, and a row that never fits is refused before it is sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import datajoint as dj
import numpy as np
import pytest
from datajoint.blob import pack

from workflow.pipeline import computing
from workflow.pipeline.computing import ThreeSteps, insert_chunked
from workflow.sample import insert as sample_insert

MIB = 2**20


class Table:
    """Takes what is inserted; its server accepts packets of a given size."""

    full_table_name = "`lab_lds`.`__l_d_s`"

    def __init__(self, backend: str = "mysql", packet: int = 64 * MIB) -> None:
        self.statements: list[list[Mapping[str, Any]]] = []
        self.asked: list[str] = []
        self._packet = packet
        self.connection = SimpleNamespace(adapter=SimpleNamespace(backend=backend), query=self._query)

    def _query(self, statement: str) -> Any:
        self.asked.append(statement)
        return SimpleNamespace(fetchone=lambda: (self._packet,))

    def insert(self, rows: list[Mapping[str, Any]], **_: bool) -> None:
        self.statements.append(list(rows))


def noise(n_bytes: int) -> np.ndarray:
    """Bytes that cannot be compressed."""
    return np.random.default_rng(0).integers(0, 256, n_bytes, dtype=np.uint8)


def rows(count: int, n_bytes: int) -> Iterator[dict[str, Any]]:
    return ({"component": i, "time_course": noise(n_bytes)} for i in range(count))


def as_sent(statement: list[Mapping[str, Any]]) -> int:
    """Bytes of a statement: every byte of a blob becomes two digits."""
    return sum(2 * len(pack(row["time_course"])) for row in statement)


@pytest.mark.parametrize("packet", [4 * MIB, 64 * MIB])
def test_many_rows_go_in_statements_that_fit(packet: int) -> None:
    table = Table(packet=packet)
    insert_chunked(table, rows(80, MIB // 2))
    assert [row["component"] for statement in table.statements for row in statement] == list(range(80))
    assert 1 < len(table.statements) < 80
    assert all(as_sent(statement) < packet for statement in table.statements)


def test_no_rows_are_no_statement() -> None:
    table = Table()
    insert_chunked(table, iter(()))
    assert table.statements == []


def test_rows_are_taken_as_they_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A generator's rows are not collected: when the first statement goes out, most do not exist yet."""
    monkeypatch.setattr(computing, "INSERT_BYTES", 3000)
    made = 0

    def counted() -> Iterator[dict[str, Any]]:
        nonlocal made
        for row in rows(50, 900):
            made += 1
            yield row

    table = Table()
    seen: list[int] = []
    monkeypatch.setattr(table, "insert", lambda chunk: seen.append(made))
    insert_chunked(table, counted())
    assert seen[0] < 6
    assert len(seen) > 10


def test_a_value_that_never_fits_is_one_line_and_is_not_sent() -> None:
    table = Table(packet=4 * MIB)
    row = {"subject_id": 1, "small": np.zeros(3), "transition": noise(2 * MIB + 1)}
    with pytest.raises(dj.DataJointError) as refused:
        insert_chunked(table, [row])
    message = str(refused.value)
    assert "\n" not in message
    assert "`lab_lds`.`__l_d_s`, column transition: a value of 20971" in message
    assert f"max_allowed_packet of {4 * MIB} bytes" in message
    assert "raise that variable on the server" in message
    assert table.statements == []


def test_earlier_rows_are_not_held_back_by_one_that_is_refused() -> None:
    """The transaction takes them back; they need not be kept in memory for that."""
    table = Table(packet=4 * MIB)
    with pytest.raises(dj.DataJointError, match="column time_course"):
        insert_chunked(table, [*rows(3, MIB), {"component": 3, "time_course": noise(3 * MIB)}])
    assert sum(len(statement) for statement in table.statements) <= 3


def test_samples_are_inserted_in_the_same_way() -> None:
    table = Table(packet=4 * MIB)
    sample_insert._insert(lambda: table, rows(80, MIB // 2))
    assert max(map(as_sent, table.statements)) <= 4 * MIB
    with pytest.raises(dj.DataJointError, match="column time_course: a value of"):
        sample_insert._insert(lambda: table, rows(1, 3 * MIB))


def test_a_value_that_fits_when_compressed_is_sent() -> None:
    table = Table(packet=4 * MIB)
    insert_chunked(table, [{"component": 0, "time_course": np.zeros(3 * MIB, np.uint8)}])
    assert len(table.statements) == 1


def test_the_limit_is_that_of_the_whole_row() -> None:
    table = Table(packet=4 * MIB)
    with pytest.raises(dj.DataJointError, match="column b: "):
        insert_chunked(table, [{"a": noise(MIB), "b": noise(MIB + 100)}])
    assert table.statements == []


def test_lists_and_text_are_weighed_too() -> None:
    table = Table(packet=MIB)
    for value in (["x" * 40] * 30_000, "y" * MIB, [noise(MIB)], noise(MIB).tobytes()):
        # A list is weighed as it is stored, compressed; so make it one that cannot be.
        if isinstance(value, list) and isinstance(value[0], str):
            insert_chunked(table, [{"a": value}])
            continue
        with pytest.raises(dj.DataJointError, match="column a: "):
            insert_chunked(table, [{"a": value}])
    assert len(table.statements) == 1


def test_postgresql_has_a_limit_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table("postgresql")
    insert_chunked(table, rows(1, MIB))
    assert table.asked == []
    assert 2 * computing._row_limit(table.connection)[0] < 2**30
    monkeypatch.setattr(computing, "POSTGRESQL_STATEMENT", MIB)
    with pytest.raises(dj.DataJointError, match="PostgreSQL's limit of 1 GiB per statement"):
        insert_chunked(table, rows(1, MIB))


class Reading:
    """Inputs that know whether they still exist."""

    alive = 0
    digest = "the same"

    def __init__(self) -> None:
        Reading.alive += 1
        assert Reading.alive == 1, "what was read first is still there"

    def __del__(self) -> None:
        Reading.alive -= 1


class Steps(ThreeSteps):
    def __init__(self) -> None:
        self.stored: list[tuple[dict[str, Any], str]] = []

    def read(self, key: dict[str, Any]) -> Reading:
        return Reading()

    def compute(self, inputs: Reading) -> str:
        return "result"

    def store(self, key: dict[str, Any], result: str) -> None:
        assert Reading.alive == 0
        self.stored.append((key, result))


def test_what_was_read_is_forgotten_before_it_is_read_again() -> None:
    """As DataJoint calls it: read and compute, then read again to compare, and store."""
    table = Steps()
    first = table.make({"session": 1})
    fetched = next(first)
    result = next(first)
    again = table.make({"session": 1})
    assert next(again) == fetched == ("the same",)
    again.send(result)
    assert table.stored == [({"session": 1}, "result")]
