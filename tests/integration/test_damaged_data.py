"""A value that is no trace makes one key fail, by name; everything else is computed."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from databases import Server
from lab import Lab

pytest_plugins = ("databases",)

COMMIT = "0123456789abcdef0123456789abcdef01234567"

#: Damages the trace of one ROI in each of a few epochs: bytes are put into the server as they are.
DAMAGE = """
import numpy as np
from datajoint import blob
values = [b"no blob at all", "text", np.ones((3, 4)), ["a", "b"], np.zeros(17),
          blob.pack(np.zeros(900), compress=False)[:-9], blob.pack(np.zeros(900))[:-9]]
epochs = (svd.PopulationSVD().key_source & {"svd_params": "mesoscope"}).keys(order_by="KEY")
answer = []
for epoch, value in zip(epochs, values):
    epoch = {name: epoch[name] for name in exp2.SessionEpoch().primary_key}
    roi = ((img.ROIdeltaF() & epoch) - img.ROIBad).keys(order_by="KEY")[4]
    table = img.ROIdeltaF()
    if isinstance(value, bytes):
        quote = table.adapter.quote_identifier
        where = " AND ".join(f"{quote(name)} = '{item}'" for name, item in roi.items())
        query = f"UPDATE {table.full_table_name} SET {quote('dff_trace')} = %s WHERE {where}"
        table.connection.query(query, args=(value,))
    else:
        table.update1({**roi, "dff_trace": value})
    answer.append([epoch, roi["roi_number"]])
"""


@pytest.fixture(params=["postgresql_server", "mysql_server"])
def lab(request: pytest.FixtureRequest, schemas: Callable[[Server], str]) -> Lab:
    """A laboratory with the small sample, on each kind of server."""
    server = request.getfixturevalue(request.param)
    laboratory = Lab(server, schemas(server))
    assert laboratory.workflow("sample").returncode == 0
    return laboratory


def test_parameters_that_ask_for_no_recording_that_there_is_are_told(lab: Lab) -> None:
    """The parameters that come with some tables are for the mesoscope only."""
    lab.execute("img.Mesoscope.delete_quick()")
    hint = "no row of parameters asks for the recordings that there are: insert one with recording 'other'"
    idle = lab.workflow("plan", "--tables", "*SVD", "--tables", "SharedVariance")
    asking = "area_svd.AreaSVD, matched_svd.MatchedAreaSVD, shared_variance.SharedVariance"
    assert idle.stderr == f"run_workflow: {asking}: {hint}\n"


def test_epochs_without_a_frame_rate_are_skipped(lab: Lab) -> None:
    """Once, in every table, with the reason."""
    one = {"subject_id": 100011, "session": 1, "session_epoch_number": 1}
    kinds = lab.execute(f"""
answer = (exp2.SessionEpoch() & {one!r}).to_arrays('session_epoch_type').tolist()
(img.FOVEpoch & {one!r}).delete_quick()
fov = (img.FOV & {one!r}).fetch1()
img.FOV.update1({{**fov, 'imaging_frame_rate': None}})
""")
    summary = lab.json("run", "--where", json.dumps(one))
    told = {table["table"]: (table["due"], table["done"], table["failed"]) for table in summary["tables"]}
    assert len(told) == 11
    assert all(due and not done and not failed for due, done, failed in told.values()), told
    reasons = {key["reason"].rpartition("was skipped: ")[2] for key in summary["keys"]}
    assert reasons == {"no frame rate: neither FOVEpoch nor FOV has one"}
    assert len(kinds) == 1
    assert lab.json("run", "--where", json.dumps(one))["message"] == "nothing was due"


def test_damaged_traces_fail_by_name_and_the_rest_goes_on(lab: Lab) -> None:
    """Bytes that hold nothing, text, a matrix, words, a trace that is too short, and traces cut off."""
    damaged = lab.execute(DAMAGE)
    assert len(damaged) == 7
    chosen = ("--tables", "PopulationSVD", "--where", '{"svd_params": "mesoscope"}')
    due = [10, 7]  # what failed is due again
    for upstream, n_due in zip(["declare", "read"], due, strict=True):
        result = lab.workflow("run", *chosen, "--json", WORKFLOW_UPSTREAM=upstream, WORKFLOW_COMMIT=COMMIT)
        assert result.returncode == 1, result.stderr
        summary = json.loads(result.stdout)
        [table] = summary["tables"]
        assert (table["due"], table["failed"], table["done"] + table["skipped"]) == (n_due, 7, n_due - 7)
        for epoch, roi_number in damaged:
            [reason] = [
                key["reason"]
                for key in summary["keys"]
                if key["outcome"] == "failed" and epoch.items() <= key["key"].items()
            ]
            assert "ROIdeltaF.dff_trace of ROI {" in reason
            assert f"'roi_number': {roi_number}" in reason
            assert "\n" not in reason
    assert lab.execute("answer = svd.PopulationSVD().to_arrays('code_commit').tolist()") == [COMMIT] * 3
