"""A parameter row that makes no sense is refused when it is inserted, with one line, and its whole batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import datajoint as dj
import numpy as np
import pandas as pd
import pytest
from databases import Server

from workflow.pipeline.parameters import CheckedLookup, Row, at_least, at_most, one_of, problems

pytest_plugins = ("databases",)

GOOD = {"params": "good", "n_observed": 25, "n_latent": 20}


class ModelParams(CheckedLookup):
    """Parameters with defaults of every kind."""

    definition = """
    # parameters of a model
    params : varchar(32)
    ---
    n_observed : int32
    n_latent : int32
    time_bin=0.5 : float64  # s
    scheme="two 'halves'" : varchar(32)
    shift=null : float64
    centred=1 : bool
    """
    contents: ClassVar = [("default", 25, 20, 0.0, "quarters", None, True)]

    @staticmethod
    def check(row: Row) -> str:
        """Require a model that can be fitted."""
        assert row["shift"] is None or isinstance(row["shift"], float)
        return problems(
            at_most(row, "n_latent", "n_observed"),
            at_least(row, "time_bin", 0),
            one_of(row, "scheme", "quarters", "two 'halves'"),
            one_of(row, "centred", True, False),
        )


@pytest.fixture(params=["postgresql_server", "mysql_server"])
def table(request: pytest.FixtureRequest, schemas: Callable[[Server], str]) -> Iterator[Any]:
    """The table, declared on each kind of server."""
    server = request.getfixturevalue(request.param)
    with server.instance() as instance:
        decorated = instance.Schema(f"{schemas(server)}checked")(
            type("ModelParams", (ModelParams,), {"__module__": "workflow.pipeline.lds"})
        )
        yield decorated()


def test_every_way_in_is_open_to_rows_that_make_sense(table: Any, tmp_path: Path) -> None:
    """Contents, mappings with defaults, sequences, records, data frames, queries and files are inserted."""
    assert len(table) == 1
    table.insert1(GOOD)
    table.insert([("sequence", 3, 3, 1.0, "quarters", 2.0, False)])
    record = np.array([("record", 3, 2)], dtype=[("params", "U32"), ("n_observed", int), ("n_latent", int)])
    table.insert1(record[0])
    table.insert(pd.DataFrame([{**GOOD, "params": "frame"}]))
    table.insert(pd.DataFrame([{**GOOD, "params": "indexed"}]).set_index("params"))
    (tmp_path / "rows.csv").write_text("params,n_observed,n_latent\nfile,9,7\n")
    table.insert(tmp_path / "rows.csv")
    table.insert(table & "n_latent=20", skip_duplicates=True)
    assert set(table.to_arrays("params")) == {
        "default", "good", "sequence", "record", "frame", "indexed", "file",
    }  # fmt: skip
    stored = (table & "params='good'").fetch1()
    assert (stored["time_bin"], stored["scheme"], stored["centred"]) == (0.5, "two 'halves'", True)


#: Rows that make no sense, and how the refusal ends.
BAD: list[tuple[dict[str, Any], str]] = [
    ({**GOOD, "n_latent": 26}, "n_latent is 26, must be at most n_observed, which is 25"),
    ({**GOOD, "time_bin": -1.0}, "time_bin is -1.0, must be at least 0"),
    ({**GOOD, "time_bin": float("inf")}, "time_bin is inf, must be a finite number"),
    ({**GOOD, "time_bin": float("nan")}, "time_bin is nan, must be a finite number"),
    ({**GOOD, "scheme": "thirds"}, "scheme is 'thirds', must be one of quarters, two 'halves'"),
    ({"params": "good", "n_observed": 25}, "n_latent is missing"),
    ({**GOOD, "n_latent": 19.5}, "n_latent is 19.5, must be a whole number"),
    ({**GOOD, "n_latent": "19.5"}, "n_latent is 19.5, must be a whole number"),
    ({**GOOD, "n_latent": 26, "time_bin": "x"}, "which is 25; time_bin is 'x', must be a finite number"),
]


def test_one_bad_row_keeps_its_batch_out(table: Any) -> None:
    """The error is one line with the table, the row and the reason; nothing of the batch is inserted."""
    for row, reason in BAD:
        with pytest.raises(dj.DataJointError) as refused:
            table.insert([{**GOOD, "params": "before"}, row, {**GOOD, "params": "after"}], chunk_size=1)
        assert str(refused.value).startswith("lds.ModelParams: parameter row params='good' refused: ")
        assert str(refused.value).endswith(reason)
        assert "\n" not in str(refused.value)
    assert len(table) == 1


def test_sequences_records_and_changes_are_checked_too(table: Any) -> None:
    """No way in goes round the check."""
    with pytest.raises(dj.DataJointError, match="time_bin is -1"):
        table.insert1(("bad", 3, 2, -1, "quarters", None, True))
    with pytest.raises(dj.DataJointError, match="is not a row of params, n_observed"):
        table.insert1(("bad", 3, 2))
    record = np.array([("bad", 2, 3)], dtype=[("params", "U32"), ("n_observed", int), ("n_latent", int)])
    with pytest.raises(dj.DataJointError, match="n_latent is 3, must be at most n_observed"):
        table.insert(record)
    with pytest.raises(dj.DataJointError, match="n_latent is 26, must be at most n_observed"):
        table.update1({"params": "default", "n_latent": 26})
    table.update1({"params": "default", "n_latent": 24})
    assert table.to_arrays("n_latent").tolist() == [24]


def test_contents_are_checked_when_the_table_is_declared(
    postgresql_server: Server, schemas: Callable[[Server], str]
) -> None:
    """A bad row in the class itself is refused as well."""
    bad = type("BadParams", (ModelParams,), {"contents": [("bad", 1, 2, 0.0, "quarters", None, True)]})
    with postgresql_server.instance() as instance:
        schema = instance.Schema(f"{schemas(postgresql_server)}bad")
        with pytest.raises(dj.DataJointError, match="BadParams: parameter row params='bad' refused"):
            schema(bad)
