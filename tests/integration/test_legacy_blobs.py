"""Blob columns as older DataJoint clients wrote them, read through the hook, on a real MySQL server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import datajoint as dj
import numpy as np
import pytest
from databases import Server
from datajoint import blob

from workflow.pipeline.legacy_blobs import attach_blob_codec

pytest_plugins = ("databases",)

# Every kind of value that an old client stored: row and column vectors, both precisions, long enough to be
# compressed, and one whose serialised bytes end in zeros.
VALUES: dict[int, Any] = {
    1: np.arange(5.0),
    2: np.zeros((1, 7), dtype=np.float32),
    3: np.arange(6.0).reshape(6, 1),
    4: np.tile(np.arange(50.0), 40),
    5: np.zeros(4000, dtype=np.float32),
}


def packed(value: Any) -> bytes:
    stored: bytes = blob.pack(value, compress=True)
    return stored


@pytest.fixture
def instance(mysql_server: Server) -> Iterator[dj.Instance]:
    with mysql_server.instance() as opened:
        yield opened


@pytest.fixture
def lab(instance: dj.Instance, mysql_server: Server, schemas: Callable[[Server], str]) -> str:
    """Give the prefix of two schemas, `lab` and `other`, of the same tables, as old clients made them."""
    prefix = schemas(mysql_server)
    for name in (f"{prefix}lab", f"{prefix}other"):
        declare_as_old_clients_did(instance, name)
    attach_blob_codec([f"{prefix}lab"])
    return prefix


def declare_as_old_clients_did(instance: dj.Instance, schema: str) -> None:
    query = instance.connection.query
    query(f"CREATE SCHEMA `{schema}`")
    query(
        f"CREATE TABLE `{schema}`.`roi` (`roi` int NOT NULL COMMENT 'number', `x` double DEFAULT NULL "
        "COMMENT 'pixels', PRIMARY KEY (`roi`)) ENGINE=InnoDB COMMENT 'regions of interest'"
    )
    query(
        f"CREATE TABLE `{schema}`.`__roi_trace` (`roi` int NOT NULL, "
        "`trace` longblob NOT NULL COMMENT 'dF/F', `weights` blob DEFAULT NULL COMMENT 'may be absent', "
        "`marked` longblob COMMENT ':<blob>:new column', `raw` longblob COMMENT ':bytes:plain bytes', "
        f"PRIMARY KEY (`roi`), FOREIGN KEY (`roi`) REFERENCES `{schema}`.`roi` (`roi`)"
        ") ENGINE=InnoDB COMMENT 'traces'"
    )
    for number, value in VALUES.items():
        query(f"INSERT INTO `{schema}`.`roi` VALUES (%s, %s)", args=(number, 1.5 * number))
        query(
            f"INSERT INTO `{schema}`.`__roi_trace` VALUES (%s, %s, NULL, %s, %s)",
            args=(number, packed(value), packed(value), b"ab\0\0"),
        )


def tables(instance: dj.Instance, schema: str) -> dj.VirtualModule:
    return dj.VirtualModule(schema, schema, connection=instance.connection)


def test_the_stored_bytes_are_of_the_kinds_that_matter() -> None:
    beginnings = {packed(value)[:4] for value in VALUES.values()}
    assert beginnings == {b"mYm\0", b"ZL12"}
    assert any(packed(value).endswith(b"\0\0\0") for value in VALUES.values())


def test_fetch1_gives_the_array(instance: dj.Instance, lab: str) -> None:
    traces = tables(instance, f"{lab}lab").RoiTrace()
    for number, value in VALUES.items():
        found = (traces & {"roi": number}).fetch1("trace")
        np.testing.assert_array_equal(found, value, strict=True)


def test_to_arrays_and_to_dicts_give_the_arrays(instance: dj.Instance, lab: str) -> None:
    traces = tables(instance, f"{lab}lab").RoiTrace()
    numbers, found = traces.to_arrays("roi", "trace", order_by="roi")
    assert list(numbers) == list(VALUES)
    for number, array in zip(numbers, found, strict=True):
        np.testing.assert_array_equal(array, VALUES[number], strict=True)
    for row in traces.to_dicts():
        np.testing.assert_array_equal(row["trace"], VALUES[row["roi"]], strict=True)
        assert row["weights"] is None


def test_joins_restrictions_and_renames_give_the_arrays(instance: dj.Instance, lab: str) -> None:
    module = tables(instance, f"{lab}lab")
    joined = (module.Roi & "x > 2").proj("x") * module.RoiTrace.proj(dff="trace")
    assert len(joined) == 4
    for row in joined.to_dicts():
        np.testing.assert_array_equal(row["dff"], VALUES[row["roi"]], strict=True)
    renamed = module.RoiTrace.proj(cell="roi", dff="trace") & {"cell": 5}
    np.testing.assert_array_equal(renamed.fetch1("dff"), VALUES[5], strict=True)
    free = instance.FreeTable(f"`{lab}lab`.`__roi_trace`") & {"roi": 2}
    np.testing.assert_array_equal(free.fetch1("trace"), VALUES[2], strict=True)


def test_a_user_who_may_only_read_the_lab_computes_from_it(
    instance: dj.Instance, lab: str, mysql_server: Server
) -> None:
    reader = replace(mysql_server, user=f"{lab}user", password="only for reading")
    query = instance.connection.query
    query(f"CREATE USER `{reader.user}`@`%%` IDENTIFIED BY %s", args=(reader.password,))
    try:
        query(f"GRANT SELECT, REFERENCES ON `{lab}lab`.* TO `{reader.user}`@`%%`", args=())
        query(f"GRANT ALL ON `{lab}results`.* TO `{reader.user}`@`%%`", args=())
        with reader.instance() as limited:
            sums = compute_sums(limited, lab)
            assert sums == {number: value.sum() for number, value in VALUES.items()}
    finally:
        query(f"DROP USER `{reader.user}`@`%%`", args=())


def compute_sums(instance: dj.Instance, prefix: str) -> dict[int, float]:
    """Declare a results table that refers to the lab's and populate it as a worker does."""
    module = tables(instance, f"{prefix}lab")
    schema = instance.Schema(f"{prefix}results", context={"lab": module})

    @schema
    class TraceSum(dj.Computed):
        definition = """
        -> lab.RoiTrace
        ---
        total : float64
        """

        def make(self, key: dict[str, Any]) -> None:
            trace = (module.Roi * module.RoiTrace & key).fetch1("trace")
            self.insert1({**key, "total": trace.sum()})

    TraceSum.populate(reserve_jobs=True)
    return {row["roi"]: row["total"] for row in TraceSum.to_dicts()}


def test_an_inserted_array_is_stored_as_old_clients_expect(instance: dj.Instance, lab: str) -> None:
    module = tables(instance, f"{lab}lab")
    module.Roi.insert1({"roi": 9, "x": None})
    module.RoiTrace.insert1({"roi": 9, "trace": np.arange(3.0)}, allow_direct_insert=True)
    rows = instance.connection.query(
        f"SELECT `trace` FROM `{lab}lab`.`__roi_trace` WHERE `roi` = 9"
    ).fetchall()
    assert rows == ((packed(np.arange(3.0)),),)


def test_marked_columns_and_other_schemas_stay_as_they_are(instance: dj.Instance, lab: str) -> None:
    row = (tables(instance, f"{lab}lab").RoiTrace & {"roi": 1}).fetch1()
    np.testing.assert_array_equal(row["marked"], VALUES[1], strict=True)
    assert row["raw"] == b"ab\0\0"
    heading = tables(instance, f"{lab}lab").RoiTrace().heading
    assert (heading["marked"].type, heading["raw"].codec) == ("<blob>", None)

    other = (tables(instance, f"{lab}other").RoiTrace & {"roi": 1}).fetch1()
    assert other["trace"] == packed(VALUES[1])
    np.testing.assert_array_equal(other["marked"], VALUES[1], strict=True)


def test_attaching_again_changes_nothing_and_adds_schemas(instance: dj.Instance, lab: str) -> None:
    attach_blob_codec([f"{lab}lab"])
    attach_blob_codec(iter((f"{lab}lab", f"{lab}other")))
    for name in ("lab", "other"):
        found = (tables(instance, f"{lab}{name}").RoiTrace & {"roi": 3}).fetch1("trace")
        np.testing.assert_array_equal(found, VALUES[3], strict=True)


def test_bytes_of_another_format_are_an_error_not_a_silent_none(instance: dj.Instance, lab: str) -> None:
    instance.connection.query(f"UPDATE `{lab}lab`.`__roi_trace` SET `trace` = 'JPEG' WHERE `roi` = 2")
    traces = tables(instance, f"{lab}lab").RoiTrace()
    with pytest.raises(dj.DataJointError, match="begins with b'JPEG' holds no serialised value"):
        (traces & {"roi": 2}).fetch1("trace")
    assert (traces & {"roi": 2}).fetch1("raw") == b"ab\0\0"


def test_reading_leaves_the_lab_schema_as_it_was(instance: dj.Instance, lab: str) -> None:
    def state() -> list[tuple[Any, ...]]:
        columns = "table_name, column_name, column_type, column_comment, is_nullable"
        source = f"information_schema.columns WHERE table_schema = '{lab}lab'"
        return list(instance.connection.query(f"SELECT {columns} FROM {source} ORDER BY 1, 2").fetchall())

    before = state()
    tables(instance, f"{lab}lab").RoiTrace.to_arrays("trace")
    assert state() == before
    assert {row[0] for row in before} == {"roi", "__roi_trace"}


def test_one_string_is_refused() -> None:
    with pytest.raises(TypeError, match="not the string 'map_lab'"):
        attach_blob_codec("map_lab")
