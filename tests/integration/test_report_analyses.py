"""The figures of every analysis, drawn from a database in which each has results."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from databases import Server
from lab import Lab

from workflow.report.gallery import FIGURES

pytest_plugins = ("databases",)

#: The small sample is too small for the default parameters of some tables.
SMALL_PARAMETERS = """
from workflow.pipeline import communication_subspace, lds, matched_svd, schemas, shuffle

def smaller(table, name, **changes):
    row = table().fetch1() | changes
    table().insert1({**row, table().primary_key[0]: name})

smaller(shuffle.AreaShuffleParams, "small", subset_rois=8, n_shuffles=20)
smaller(matched_svd.MatchedAreaSVDParams, "small", subset_rois=8, subset_frames=400, n_components=8)
smaller(lds.LDSParams, "small", n_observed=6, n_latent=4, iterations=5, min_frames=400, min_frames_area=400)
smaller(
    communication_subspace.CommunicationSubspaceParams, "small",
    n_rois=8, max_rank=4, max_lag=3, folds=4, gap=10,
)
"""

#: What the drawing of each table must say.
AXES = {
    "svd.PopulationSVD": "time in the epoch (s)",
    "area_svd.AreaSVD": "by each component (%)",
    "matched_svd.MatchedAreaSVD": "by each component (%)",
    "partition_svd.PartitionSVD": "partition 1",
    "shuffle.AreaShuffle": "5 to 95 %",
    "timescale.ComponentTimescale": "timescale (s)",
    "timescale.AreaComponentTimescale": "censored",
    "lds.LDS": "imaginary part",
    "lds.AreaLDS": "time constant (s)",
    "shared_variance.SharedVariance": "reliable variance (%)",
    "communication_subspace.CommunicationSubspace": "lag (s), positive = the source leads",
}


@pytest.fixture
def small_lab(postgresql_server: Server, schemas: Callable[[Server], str]) -> Lab:
    """A laboratory with the small sample and parameters for it."""
    laboratory = Lab(postgresql_server, schemas(postgresql_server))
    assert laboratory.workflow("sample").returncode == 0
    laboratory.execute(SMALL_PARAMETERS)
    return laboratory


def test_every_analysis_is_drawn(small_lab: Lab, tmp_path: Path) -> None:
    """Each table has its drawings with labelled axes and its numbers, and the same report twice."""
    assert set(AXES) == set(FIGURES)
    one_epoch = '{"subject_id": 100011, "session": 1, "session_epoch_type": "behav_only"}'
    ran = small_lab.workflow("run", "--where", one_epoch, "--output", tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert "report could not be written" not in ran.stderr
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "could not be drawn" not in html
    assert "holds no result of this table yet" not in html
    pieces = re.split(r"<h3>([a-z_]+\.\w+)</h3>", html[html.index('id="results"') :])
    drawn = dict(zip(pieces[1::2], pieces[2::2], strict=True))
    assert list(drawn) == list(FIGURES)
    for label, words in AXES.items():
        assert '<svg class="plot"' in drawn[label], label
        assert f"{words}</text>" in drawn[label], label
        assert "<tbody>" in drawn[label], label
    assert "reliable variance" in drawn["shared_variance.SharedVariance"]
    assert "MOs → MOp" in drawn["communication_subspace.CommunicationSubspace"]

    again = tmp_path / "again.html"
    result = small_lab.workflow("report", "--summary", tmp_path / "summary.json", "--output", again)
    assert result.returncode == 0, result.stderr
    assert again.read_bytes() == (tmp_path / "report.html").read_bytes()
