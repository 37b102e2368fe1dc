"""Peak memory of one call of make at size, against what its table announces."""

from __future__ import annotations

import json
import uuid

from bench.laboratory import environment, execute, workflow
from bench.measure import MeasurementError
from bench.registry import Options, Row, benchmark
from bench.servers import server

SIZE = (4000, 8000)
GIB = 2**30
TABLES = ("svd.PopulationSVD", "shared_variance.SharedVariance")

#: One epoch on the mesoscope, in double precision: a few latents in noise. Then, what the table announces.
_LOAD = """
import numpy as np
session = {'subject_id': 1, 'session': 1}
epoch = {**session, 'session_epoch_type': 'spont_only', 'session_epoch_number': 1}
lab.Subject.insert1({'subject_id': 1})
stimanal.MiceIncluded.insert1({'subject_id': 1})
exp2.Session.insert1({**session, 'session_date': '2024-01-01'})
exp2.SessionEpochType.insert1(('spont_only', ''), skip_duplicates=True)
exp2.SessionEpoch.insert1(
    {**epoch, 'session_epoch_start_time': 0, 'session_epoch_end_time': n_frames / 10})
img.Mesoscope.insert1(session)
img.FOV.insert1({**session, 'fov_num': 1})
img.FOVEpoch.insert1({**epoch, 'imaging_frame_rate': 10.0}, allow_direct_insert=True)
plane = {**session, 'fov_num': 1, 'plane_num': 1, 'channel_num': 1}
img.Plane.insert1(plane)
rng = np.random.default_rng(0)
latents = rng.standard_normal((20, n_frames))
for start in range(1, n_rois + 1, 250):
    rois = [{**plane, 'roi_number': n} for n in range(start, min(start + 250, n_rois + 1))]
    places = rng.uniform(0, 2000, (len(rois), 2)).tolist()
    img.ROI.insert(
        {**roi, 'roi_centroid_x': x, 'roi_centroid_y': y} for roi, (x, y) in zip(rois, places))
    F = rng.standard_normal((len(rois), 20)) @ latents + 5 * rng.standard_normal((len(rois), n_frames))
    img.ROIdeltaF.insert(
        ({**epoch, **roi, 'dff_trace': f} for roi, f in zip(rois, F)), allow_direct_insert=True)
tables[label].jobs.refresh()
answer = tables[label].worker_memory
"""
_PEAK = """
from workflow.populate import ledger
answer = max(int(peak) for peak in (ledger.Worker & 'number > 0').to_arrays('peak_memory'))
"""


def measure(label: str, size: tuple[int, int]) -> Row:
    """Compute one key in a worker of its own, on a server of its own."""
    n_rois, n_frames = size
    with server("postgresql") as of:
        where = environment(of, f"bench_{uuid.uuid4().hex[:8]}_")
        announced = execute(where, f"label, (n_rois, n_frames) = {label!r}, {size}" + _LOAD)
        [table] = json.loads(workflow(where, "run", "--tables", label, "--processes", "1", "--json"))[
            "tables"
        ]
        if table["done"] != 1:
            raise MeasurementError(f"{label} was not computed: {table}")
        peak = execute(where, _PEAK)
    traces = 8 * n_rois * n_frames
    return Row(
        f"memory of {label.rpartition('.')[2]}",
        f"{n_rois} × {n_frames}",
        peak / GIB,
        limit_seconds=announced / GIB,
        unit="GiB",
        note=f"{peak / traces:.1f} × the traces in double precision; at most what the table announces",
    )


@benchmark("memory")
def memory(options: Options) -> list[Row]:
    """The two computations that hold most."""
    del options  # one worker has one peak
    return [measure(label, SIZE) for label in TABLES]
