"""The real run on the lab's tables as they are, by a user who may only read them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import datajoint as dj
import numpy as np
import pytest
from databases import Server
from lab import Lab, counts
from old_lab import OldLab, Recorded, packed

from workflow.analysis.normalization import zscore
from workflow.analysis.svd import population_svd
from workflow.settings import UPSTREAM_SCHEMAS

pytest_plugins = ("databases",)

CHOSEN = ("--tables", "svd.*", "--tables", "area_svd.*")

STORED = """
from workflow.pipeline import area_svd
answer = [
    [[row[name] for name in exp2.SessionEpoch.primary_key], row.get('brain_area'), row['bin_width'],
     row['singular_values'].tolist()]
    for table in (svd.PopulationSVD, area_svd.AreaSVD) for row in table().to_dicts()
]
"""


@pytest.fixture
def admin(mysql_server: Server) -> Iterator[dj.Instance]:
    with mysql_server.instance() as opened:
        yield opened


@pytest.fixture
def reader(admin: dj.Instance, mysql_server: Server, schemas: Callable[[Server], str]) -> Iterator[Lab]:
    """The lab's schemas, under names of this test's own, and somebody who may read them and write ours."""
    prefix = schemas(mysql_server)
    user = replace(mysql_server, user=f"{prefix}user", password="only for reading")
    query = admin.connection.query
    query(f"CREATE USER `{user.user}`@`%%` IDENTIFIED BY %s", args=(user.password,))
    for name in UPSTREAM_SCHEMAS:
        query(f"GRANT SELECT, REFERENCES ON `{prefix}lab_{name}`.* TO `{user.user}`@`%%`", args=())
    query(f"GRANT ALL ON `{prefix}ours\\_%%`.* TO `{user.user}`@`%%`", args=())
    yield Lab(user, prefix)
    query(f"DROP USER `{user.user}`@`%%`", args=())


@pytest.fixture
def old_lab(admin: dj.Instance, reader: Lab) -> OldLab:
    return OldLab(admin, {name: f"{reader.prefix}lab_{name}" for name in UPSTREAM_SCHEMAS})


def test_a_run_reads_the_lab_and_writes_only_what_is_ours(
    old_lab: OldLab, reader: Lab, tmp_path: Path
) -> None:
    old_lab.declare()
    recorded = old_lab.fill()
    before = old_lab.statements()

    run = reader.workflow("run", *CHOSEN, "--json", "--output", tmp_path, **ours(reader))
    assert run.returncode == 0, run.stdout + run.stderr
    summary = json.loads(run.stdout)
    assert counts(summary) == {"area_svd.AreaSVD": (8, 8, 0, 0), "svd.PopulationSVD": (8, 8, 0, 0)}
    assert "report" not in run.stderr
    assert "Where the components live: animal 463189" in (tmp_path / "report.html").read_text()

    stored = reader.execute(STORED, **ours(reader))
    assert len(stored) == 16
    for epoch, area, bin_width, singular_values in stored:
        wanted = expected(recorded[tuple(epoch)], area, bin_width)
        np.testing.assert_allclose(singular_values, wanted, atol=1e-9 * wanted[0])

    again = reader.workflow("run", *CHOSEN, **ours(reader))
    assert (again.returncode, "nothing was due" in again.stdout) == (0, True), again.stdout + again.stderr
    assert old_lab.statements() == before


def test_another_collation_than_the_servers_is_no_obstacle(old_lab: OldLab, reader: Lab) -> None:
    """The server could not even compare such text with its own."""
    old_lab.declare("DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci")
    old_lab.fill()
    run = reader.workflow("run", *CHOSEN, "--where", "session = 1", "--json", **ours(reader))
    assert run.returncode == 0, run.stdout + run.stderr
    assert counts(json.loads(run.stdout)) == {
        "area_svd.AreaSVD": (8, 8, 0, 0),
        "svd.PopulationSVD": (2, 2, 0, 0),
    }


def test_a_damaged_trace_is_named_by_column_and_roi(admin: dj.Instance, old_lab: OldLab, reader: Lab) -> None:
    """Bytes of no format that DataJoint knows, and a compressed trace that was cut off."""
    old_lab.declare()
    old_lab.fill()
    table = f"`{old_lab.schemas['img']}`.`_r_o_idelta_f`"
    which = "session = 1 AND session_epoch_type = %s AND roi_number = 3"
    cut = packed(np.zeros(300))[:-9]
    for kind, stored in (("spont_only", b"no blob at all"), ("behav_only", cut)):
        admin.connection.query(
            f"UPDATE {table} SET dff_trace = %s WHERE subject_id = 463189 AND {which}", args=(stored, kind)
        )
    run = reader.workflow("run", "--tables", "svd.*", "--json", **ours(reader))
    assert run.returncode == 1, run.stdout + run.stderr
    summary = json.loads(run.stdout)
    assert counts(summary) == {"svd.PopulationSVD": (8, 6, 2, 0)}
    failed = [key for key in summary["keys"] if key["outcome"] == "failed"]
    reasons = {key["key"]["session_epoch_type"]: key["reason"] for key in failed}
    assert "a blob that begins with b'no blo' holds no serialised value" in reasons["spont_only"]
    assert "incomplete or truncated stream" in reasons["behav_only"]
    for reason in reasons.values():
        assert "ROIdeltaF.dff_trace of ROI {" in reason
        assert "'roi_number': 3" in reason
        assert "\n" not in reason


def ours(lab: Lab) -> dict[str, str]:
    return {"WORKFLOW_UPSTREAM": "read", "WORKFLOW_PREFIX": f"{lab.prefix}ours_"}


def expected(epoch: Recorded, area: str | None, bin_width: float) -> np.ndarray[Any, Any]:
    """Give the singular values of the good ROIs of an epoch, or of one area in it."""
    chosen = [row for row, here in enumerate(epoch.areas) if area in (None, here)]
    F = epoch.F[chosen].astype(np.float64)
    n = round(bin_width * epoch.rate)
    binned = F[:, : F.shape[1] // n * n].reshape(len(F), -1, n).mean(axis=2)
    return population_svd(zscore(binned).Z).s
