"""The report's figures, drawn from real databases that hold the small sample."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from databases import Server
from lab import Lab

pytest_plugins = ("databases",)

N_FIGURES = 3
ONLY = ("--tables", "PopulationSVD")


@pytest.fixture(scope="module", params=["postgresql_server", "mysql_server"])
def reported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Lab, Path]]:
    """A laboratory after its first round, and the folder of that round's output."""
    server: Server = request.getfixturevalue(request.param)
    laboratory = Lab(server, f"test_{uuid.uuid4().hex[:10]}_")
    folder = tmp_path_factory.mktemp("first")
    try:
        assert laboratory.workflow("sample").returncode == 0
        ran = laboratory.workflow("run", *ONLY, "--output", folder)
        assert ran.returncode == 0, ran.stderr
        assert "report could not be written" not in ran.stderr
        yield laboratory, folder
    finally:
        server.drop_schemas(laboratory.prefix)


def test_the_first_round_is_drawn(reported: tuple[Lab, Path]) -> None:
    """Spectra, components and maps are there, those of the largest epoch of the round."""
    html = (reported[1] / "report.html").read_text(encoding="utf-8")
    assert "could not be drawn" not in html
    assert html.count('<svg class="plot"') == N_FIGURES
    assert len(html) < 3_000_000
    assert "animal 100011, session 1 (2023-03-10)" in html
    assert "the one with most ROIs of those computed in this round" in html
    for area in ("MOs", "MOp", "SSp-bfd", "SSp-ul"):
        assert f">{area}</text>" in html
    assert "too short: 1 time bin" in html
    assert html.count('<th scope="row">1000') == 21


def test_with_nothing_due_the_latest_recording_is_drawn_on_request(
    reported: tuple[Lab, Path], tmp_path: Path
) -> None:
    """A round that computes nothing is quick, and says how to see what the database holds."""
    laboratory, _ = reported
    assert laboratory.workflow("run", *ONLY, "--output", tmp_path).returncode == 0
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Nothing was due" in html
    assert "run_workflow report --all" in html
    assert '<svg class="plot"' not in html

    everything = (
        "report",
        "--all",
        "--summary",
        tmp_path / "summary.json",
        "--output",
        tmp_path / "all.html",
    )
    assert laboratory.workflow(*everything).returncode == 0
    html = (tmp_path / "all.html").read_text(encoding="utf-8")
    assert "the latest recording, since this round computed none" in html
    assert html.count('<svg class="plot"') == N_FIGURES
    assert "animal 100013, session 2 (2023-03-31)" in html


def test_the_report_made_again_is_the_same(reported: tuple[Lab, Path], tmp_path: Path) -> None:
    """The verb gives the same bytes from summary.json, also where the upstream tables are only read."""
    laboratory, folder = reported
    for upstream in ("declare", "read"):
        again = tmp_path / f"{upstream}.html"
        result = laboratory.workflow(
            "report", "--summary", folder / "summary.json", "--output", again, WORKFLOW_UPSTREAM=upstream
        )
        assert result.returncode == 0, result.stderr
        assert again.read_bytes() == (folder / "report.html").read_bytes()


def test_what_is_fetched_is_what_is_stored(reported: tuple[Lab, Path]) -> None:
    """Chunks join seamlessly, every ROI has its own centroid, area and weights, and no more is fetched."""
    laboratory, _ = reported
    answer: dict[str, Any] = laboratory.execute("""
import numpy as np
from workflow.report import data
data.CHUNK = 7
every = data.decompositions()
one = max(every, key=lambda d: (d.n_rois, d.n_frames))
found = data.roi_map(one.key, 3)
answer = {"connected": data.connected(tables), "number": len(every), "latest": str(every[0].session_date)}
answer["dates"] = [str(d.session_date) for d in every]
answer["n_rois"], answer["mapped"], answer["unit"] = one.n_rois, len(found.plane), found.unit
stored = {}
for row in (svd.PopulationSVD.ROI() & one.key).to_dicts():
    roi = {name: row[name] for name in img.ROI().primary_key}
    x, y = (img.ROI() & roi).fetch1("roi_centroid_x", "roi_centroid_y")
    area = (img.ROIBrainArea() & roi).fetch1("brain_area")
    stored[x, y] = (f"plane {row['plane_num']}", area, row["weights"][:3])
answer["same"] = all(
    stored[x, y][0] == plane and stored[x, y][1] == area and np.array_equal(stored[x, y][2], weights)
    for x, y, plane, area, weights in zip(found.x, found.y, found.plane, found.area, found.weights)
)
answer["distinct"] = len(stored)
courses = data.time_courses(one.key, 6)
answer["courses"] = courses.shape
answer["norms"] = np.abs(np.linalg.norm(courses, axis=1) - 1).max()
s = data.singular_values(one.key)
answer["k90"] = one.k90, int(np.searchsorted(np.cumsum(s**2) / np.sum(s**2), 0.9) + 1)
""")
    assert answer["connected"]
    assert answer["number"] == 21
    assert answer["dates"] == sorted(answer["dates"], reverse=True)
    assert answer["mapped"] == answer["n_rois"] == answer["distinct"] == 81
    assert answer["unit"] == "pixels"
    assert answer["same"]
    assert answer["courses"] == [6, 1200]
    assert float(answer["norms"]) < 1e-5
    assert answer["k90"][0] == answer["k90"][1]


def test_micrometres_where_the_corners_are_known(reported: tuple[Lab, Path]) -> None:
    """Four corners give the scale; anything else leaves pixels."""
    laboratory, _ = reported
    answer = laboratory.execute("""
import numpy as np
from workflow.report import data
one = data.decompositions()[0]
epoch = {name: one.key[name] for name in exp2.SessionEpoch().primary_key}
pixels = data.roi_map(one.key, 1)
answer = []
corners = np.array([[100.0, 0], [1124, 0], [1124, 900], [100, 900]])
for value in (corners, corners[:3], corners * np.nan, None):
    img.FOVEpoch().update1({**epoch, "imaging_fov_um": value})
    found = data.roi_map(one.key, 1)
    answer.append((found.unit, float(found.x[0] / pixels.x[0]), float(found.y[-1] / pixels.y[-1])))
""")
    assert answer == [["µm", 2.0, 2.0], ["pixels", 1.0, 1.0], ["pixels", 1.0, 1.0], ["pixels", 1.0, 1.0]]


def test_without_a_server_the_report_is_made_all_the_same(postgresql_server: Server, tmp_path: Path) -> None:
    """A round that finds no database says so in its report."""
    nowhere = Lab(postgresql_server, "test_report_nowhere_")
    result = nowhere.workflow("run", "--output", tmp_path, DJ_HOST="127.0.0.1", DJ_PORT="9")
    assert result.returncode == 3
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "The database could not be reached" in html
    assert json.loads((tmp_path / "summary.json").read_text())["message"].split()[0] in html
    assert "made without a connection" in html
