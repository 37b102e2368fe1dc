"""The figures of every analysis, drawn from a database in which each has results."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


#: Every number of every row, a blob by its shape and two sums of it, in the order of the primary keys.
NUMBERS = """
import numpy as np

def number(value):
    if isinstance(value, np.ndarray):
        return [list(value.shape), float(np.sum(value)), float(np.sum(np.abs(value)))]
    return float(value) if isinstance(value, (int, float)) else str(value)

answer = {}
for label, table in tables.items():
    for one in (table, *table.parts(as_objects=True)):
        rows = one.to_dicts(order_by='KEY')
        answer[f'{label} {one.table_name}'] = [[number(value) for value in row.values()] for row in rows]
"""


@pytest.fixture(scope="module")
def labs(
    postgresql_server: Server, mysql_server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, tuple[Lab, Path]]]:
    """On either server, a laboratory in which everything is done for one epoch, and its round's output."""
    made = {}
    for server in (postgresql_server, mysql_server):
        laboratory = Lab(server, f"test_{uuid.uuid4().hex[:10]}_")
        folder = tmp_path_factory.mktemp(server.backend)
        made[server.backend] = laboratory, folder
        assert laboratory.workflow("sample").returncode == 0
        laboratory.execute(SMALL_PARAMETERS)
        one_epoch = '{"subject_id": 100011, "session": 1, "session_epoch_type": "behav_only"}'
        ran = laboratory.workflow("run", "--where", one_epoch, "--output", folder)
        assert ran.returncode == 0, ran.stderr
        assert "report could not be written" not in ran.stderr
    yield made
    for laboratory, _ in made.values():
        laboratory.server.drop_schemas(laboratory.prefix)


@pytest.mark.parametrize("backend", ["postgresql", "mysql"])
def test_every_analysis_is_drawn(labs: dict[str, tuple[Lab, Path]], backend: str, tmp_path: Path) -> None:
    """Each table has its drawings with labelled axes and its numbers, and the same report twice."""
    small_lab, folder = labs[backend]
    assert set(AXES) == set(FIGURES)
    html = (folder / "report.html").read_text(encoding="utf-8")
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
    result = small_lab.workflow("report", "--summary", folder / "summary.json", "--output", again)
    assert result.returncode == 0, result.stderr
    assert again.read_bytes() == (folder / "report.html").read_bytes()


def test_both_servers_hold_the_same_numbers(labs: dict[str, tuple[Lab, Path]]) -> None:
    """What is computed does not depend on where it is kept."""
    postgresql, mysql = (labs[backend][0].execute(NUMBERS) for backend in ("postgresql", "mysql"))
    assert postgresql.keys() == mysql.keys()
    assert sum(map(len, postgresql.values())) > 500
    assert {table.split()[0] for table, rows in postgresql.items() if rows} == set(AXES)
    for table, rows in postgresql.items():
        here, there = list(flat(rows)), list(flat(mysql[table]))
        assert [one for one in here if isinstance(one, str)] == [one for one in there if isinstance(one, str)]
        numbers = [one for one in here if not isinstance(one, str)]
        expected = [one for one in there if not isinstance(one, str)]
        assert numbers == pytest.approx(expected, rel=1e-5, abs=1e-6), table


def test_sets_of_parameters_are_not_mixed(labs: dict[str, tuple[Lab, Path]], tmp_path: Path) -> None:
    """What cannot be compared is in panels of its own, or not drawn, which is said; titles name what is."""
    small_lab, _ = labs["postgresql"]  # after the comparison of both: there is more in this one from now on
    small_lab.execute("""
from workflow.pipeline import lds, shared_variance, timescale
row = (lds.LDSParams & {'lds_params': 'small'}).fetch1()
lds.LDSParams.insert1({**row, 'lds_params': 'smaller', 'n_latent': 2})
timescale.TimescaleParams.insert1(('20_lags', 20))
row = shared_variance.SharedVarianceParams.fetch1()
shared_variance.SharedVarianceParams.insert1({**row, 'shared_variance_params': 'other', 'tile': 150.0})
""")
    one_epoch = '{"subject_id": 100011, "session": 1, "session_epoch_type": "behav_only"}'
    tables = ("--tables", "*Timescale", "--tables", "*LDS", "--tables", "SharedVariance")
    ran = small_lab.workflow("run", *tables, "--where", one_epoch, "--output", tmp_path)
    assert ran.returncode == 0, ran.stderr
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    pieces = re.split(r"<h3>([a-z_]+\.\w+)</h3>", html[html.index('id="results"') :])
    drawn = dict(zip(pieces[1::2], pieces[2::2], strict=True))
    assert "parameters mesoscope and smaller</h4>" in drawn["lds.LDS"]
    assert "1 system in the database with these parameters; the set is the largest" in drawn["lds.LDS"]
    assert "1 more parameter set not drawn" in drawn["lds.LDS"]
    assert "shared: parameters other</h4>" in drawn["shared_variance.SharedVariance"]
    assert "1 epoch with these parameters" in drawn["shared_variance.SharedVariance"]
    panels = drawn["timescale.ComponentTimescale"]
    assert ">mesoscope,</" in panels
    assert ">20_lags</" in panels
    assert ">50_lags</" in panels
    assert panels.count('<th scope="row">') == 2


def flat(values: list[Any]) -> Iterator[float | str]:
    """The leaves of nested lists."""
    for value in values:
        if isinstance(value, list):
            yield from flat(value)
        else:
            yield value
