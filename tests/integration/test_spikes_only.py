"""A laboratory that has deconvolved activity and no dF/F."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator

import pytest
from databases import Server
from lab import Lab, counts

pytest_plugins = ("databases",)

#: The traces of one epoch become spikes; those of all others are gone.
SPIKES = """
import numpy as np
first = {'subject_id': 100011, 'session': 1, 'session_epoch_number': 1}
rows = (img.ROIdeltaF & first).to_dicts()
img.ROISpikes.insert(
    ({'spikes_trace': np.maximum(row.pop('dff_trace'), 0), **row} for row in rows), allow_direct_insert=True)
img.ROIdeltaF.delete_quick()
"""
#: Parameters that suit 80 ROIs and 900 frames.
PARAMETERS = """
from workflow.pipeline import communication_subspace, lds, shared_variance
from workflow.pipeline import area_svd, matched_svd, partition_svd, shuffle
prepared = ('spikes', 'spikes', 'mesoscope', 0.0, 0.0)
svd.SVDParams.insert1(prepared)
area_svd.AreaSVDParams.insert1(prepared)
partition_svd.PartitionSVDParams.insert1((*prepared, 'quarters', 300, 7))
matched_svd.MatchedAreaSVDParams.insert1((*prepared, 8, 400, 5, 11))
shuffle.AreaShuffleParams.insert1((*prepared, 8, 12, 11))
shared_variance.SharedVarianceParams.insert1(
    ('spikes', 'spikes', 'mesoscope', 0.0, 'centred', 200.0, 10.0, 60, 5, 7))
communication_subspace.CommunicationSubspaceParams.insert1(
    ('spikes', 'spikes', 'mesoscope', 0.0, 8, 5, 3, 5, 4, 1e-3, 1.0, 4, 3))
lds.LDSParams.insert1(('small', 5, 3, 3, 500, 500, 0))
"""
ASKING = {
    "svd.PopulationSVD",
    "area_svd.AreaSVD",
    "partition_svd.PartitionSVD",
    "matched_svd.MatchedAreaSVD",
    "shuffle.AreaShuffle",
    "shared_variance.SharedVariance",
    "communication_subspace.CommunicationSubspace",
}


@pytest.fixture
def lab(postgresql_server: Server) -> Iterator[Lab]:
    laboratory = Lab(postgresql_server, f"test_{uuid.uuid4().hex[:10]}_")
    assert laboratory.workflow("sample").returncode == 0
    laboratory.execute(SPIKES)
    yield laboratory
    postgresql_server.drop_schemas(laboratory.prefix)


def test_spikes_are_computed_from_where_parameters_ask_for_them(lab: Lab) -> None:
    """First nobody asks, which is said; then all tables have a row that does, and dF/F has no table."""
    hint = "no row of parameters asks for the traces that there are: insert one with activity 'spikes'"
    for verb in ("plan", "run"):
        idle = lab.workflow(verb)
        assert idle.returncode == 0
        line = idle.stderr.splitlines()[-1]
        assert line.endswith(f": {hint}")
        assert set(line.removeprefix("run_workflow: ").removesuffix(f": {hint}").split(", ")) == ASKING

    lab.execute(PARAMETERS + "img.ROIdeltaF.drop_quick()")
    done = lab.workflow("run", "--json", WORKFLOW_UPSTREAM="read")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    for table, (due, done_keys, failed, _) in counts(summary).items():
        assert failed == 0, table
        assert due >= done_keys > 0, table
