"""Fetching and inserting at size, on real servers: order, precision, memory, and what never fits."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator

import pytest
from databases import Server
from lab import Lab

pytest_plugins = ("databases",)

#: One epoch of a session in two planes, with every fourth ROI bad, inserted in no order.
LOAD = """
import numpy as np
N, T = 600, 4000
epoch = {'subject_id': 1, 'session': 1, 'session_epoch_type': 'spont_only', 'session_epoch_number': 1}
session = {'subject_id': 1, 'session': 1}
lab.Subject.insert1({'subject_id': 1})
exp2.Session.insert1({**session, 'session_date': '2024-01-01'})
exp2.SessionEpochType.insert1(('spont_only', ''), skip_duplicates=True)
exp2.SessionEpoch.insert1({**epoch, 'session_epoch_start_time': 10, 'session_epoch_end_time': 410})
fov = {**session, 'fov_num': 1}
img.FOV.insert1(fov)
img.FOVEpoch.insert1({**epoch, 'imaging_frame_rate': 10.0}, allow_direct_insert=True)
planes = [{**fov, 'plane_num': plane, 'channel_num': 1} for plane in (2, 10)]
img.Plane.insert(planes)
rng = np.random.default_rng(0)
rois = [{**planes[i % 2], 'roi_number': i + 1} for i in rng.permutation(N)]
img.ROI.insert(rois)
img.ROIBad.insert(roi for roi in rois if roi['roi_number'] % 4 == 0)
lab.BrainArea.insert([('MOs', None), ('MOp', None)], skip_duplicates=True)
img.ROIBrainArea.insert({**roi, 'brain_area': 'MOs'} for roi in rois if roi['roi_number'] % 3)

def trace(number, dtype=np.float32):
    return np.random.default_rng(number).standard_normal(T).astype(np.float32).astype(dtype)

shapes = ((T,), (1, T), (T, 1))
for start in range(0, N, 100):
    img.ROIdeltaF.insert(
        ({**epoch, **roi, 'dff_trace': trace(roi['roi_number']).reshape(shapes[roi['roi_number'] % 3])}
         for roi in rois[start : start + 100]),
        allow_direct_insert=True,
    )
answer = True
"""

FETCH = """
import tracemalloc
import numpy as np
from workflow.pipeline import traces
epoch = {'subject_id': 1, 'session': 1, 'session_epoch_type': 'spont_only', 'session_epoch_number': 1}

def expected(keys, dtype=np.float32):
    made = [np.random.default_rng(key['roi_number']).standard_normal(4000) for key in keys]
    return np.stack(made).astype(np.float32).astype(dtype)

def planes(keys):
    return [[k['plane_num'], k['roi_number']] for k in keys]
"""


@pytest.fixture(scope="module", params=["postgresql_server", "mysql_server"])
def large(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A laboratory with one epoch of 600 ROIs."""
    server: Server = request.getfixturevalue(request.param)
    laboratory = Lab(server, f"test_{uuid.uuid4().hex[:10]}_")
    assert laboratory.execute(LOAD)
    yield laboratory
    server.drop_schemas(laboratory.prefix)


def test_traces_arrive_once_in_order_and_in_their_precision(large: Lab) -> None:
    """However many slices there are, and where they are cut."""
    answer = large.execute(
        FETCH
        + """
answer = []
for size in (41, 225, 256, 1000):
    traces.SLICE_ROIS = size
    for area in (None, 'MOs'):
        got = traces.fetch_activity(epoch, 'dff', area)
        assert got.F.dtype == np.float32 and got.F.flags.c_contiguous and got.frame_rate == 10.0
        assert np.array_equal(got.F, expected(got.keys))
        answer.append([size, area, planes(got.keys)])
assert traces.fetch_activity(epoch, 'dff', 'MOp').F.shape == (0, 0)
"""
    )
    good = [number for number in range(1, 601) if number % 4]
    for _, area, found in answer:
        wanted = [number for number in good if area is None or number % 3]
        assert sorted(number for _, number in found) == wanted
        assert found == sorted(found)
        assert {plane for plane, _ in found} == {2, 10}


def test_a_fetch_holds_one_copy_and_a_slice(large: Lab) -> None:
    """The peak of what Python allocates is little more than the array itself."""
    before, size, peak = large.execute(
        FETCH
        + """
traces.SLICE_ROIS = 16
traces.fetch_activity(epoch, 'dff', 'MOs').F  # whatever is loaded once is loaded now
tracemalloc.start()
got = traces.fetch_activity(epoch, 'dff')
got.digest
before = tracemalloc.get_traced_memory()[1]
answer = [before, got.F.nbytes, tracemalloc.get_traced_memory()[1]]
"""
    )
    assert size == 450 * 4000 * 4
    assert before < 0.2 * size  # nothing is fetched before it is used
    assert size < peak < 1.4 * size


def test_the_tables_know_how_large_the_largest_epoch_is(large: Lab) -> None:
    """Before anything is fetched: good ROIs, and the length of the epoch times the frame rate."""
    empty, announced = large.execute("""
from workflow.pipeline.memory import DOUBLE, WORKER_BYTES
img.Mesoscope.insert1({'subject_id': 1, 'session': 1})
stimanal.MiceIncluded.insert1({'subject_id': 1})
names = ('svd.PopulationSVD', 'partition_svd.PartitionSVD', 'shared_variance.SharedVariance',
         'area_svd.AreaSVD', 'matched_svd.MatchedAreaSVD', 'shuffle.AreaShuffle')
empty = [tables[name].worker_memory for name in names]
for name in names:
    tables[name].jobs.refresh()
values = [(tables[name].worker_memory - WORKER_BYTES) / DOUBLE for name in names]
for name in names:
    tables[name].jobs.delete()
stimanal.MiceIncluded.delete()
img.Mesoscope.delete()
answer = [empty, values]
""")
    assert empty == [0] * 6
    traces, area = 450 * 4000, 300 * 4000
    assert announced == [
        2 * traces + 5 * 450**2, 2 * traces + 5 * 450**2, 2 * traces + 2 * 450**2,
        2 * area + 5 * 300**2, 2 * area, 2 * area + 300**2,
    ]  # fmt: skip


def test_any_change_of_what_is_stored_changes_the_digest(large: Lab) -> None:
    """The server hashes the traces; one bit of one of them, or an ROI turned bad, is seen."""
    digests = large.execute(
        FETCH
        + """
def digest(area=None):
    return traces.fetch_activity(epoch, 'dff', area).digest

changed = (img.ROIdeltaF & epoch & 'roi_number = 301').fetch1()
trace = np.array(changed['dff_trace'])
trace.ravel()[-1] = np.nextafter(trace.ravel()[-1], np.float32(9))
bad = {name: changed[name] for name in img.ROI.primary_key}
answer = [digest(), digest(), digest('MOs')]
img.ROIdeltaF.update1({**changed, 'dff_trace': trace})
answer += [digest(), digest('MOs')]
img.ROIdeltaF.update1(changed)
img.ROIBad.insert1(bad)
answer += [digest()]
(img.ROIBad & bad).delete()
img.FOVEpoch.update1({**epoch, 'imaging_frame_rate': 11.0})
answer += [digest()]
img.FOVEpoch.update1({**epoch, 'imaging_frame_rate': 10.0})
answer += [digest(), digest('MOs')]
"""
    )
    first, same, area, bit, bit_area, bad, rate, last, last_area = digests
    assert first == same == last
    assert area == last_area
    assert len({first, area, bit, bit_area, bad, rate}) == 6


def test_traces_that_vanish_before_they_are_fetched_are_noticed(large: Lab) -> None:
    message = large.execute(
        FETCH
        + """
import datajoint as dj
got = traces.fetch_activity(epoch, 'dff')
bad = {name: got.keys[5][name] for name in img.ROI.primary_key}
img.ROIBad.insert1(bad)
try:
    got.F
except dj.DataJointError as error:
    answer = str(error)
(img.ROIBad & bad).delete()
"""
    )
    assert message == "ROIdeltaF.dff_trace: the ROIs of this epoch changed while they were read"


def test_one_trace_in_double_precision_makes_all_double(large: Lab) -> None:
    answer = large.execute(
        FETCH
        + """
changed = (img.ROIdeltaF & epoch & 'roi_number = 301').fetch1()
double = {**changed, 'dff_trace': np.asarray(changed['dff_trace'], np.float64)}
img.ROIdeltaF.update1(double)
traces.SLICE_ROIS = 100
got = traces.fetch_activity(epoch, 'dff')
same = bool(np.array_equal(got.F, expected(got.keys, np.float64)))
img.ROIdeltaF.update1(changed)
answer = [str(got.F.dtype), same, str(traces.fetch_activity(epoch, 'dff').F.dtype)]
"""
    )
    assert answer == ["float64", True, "float32"]


def test_a_trace_of_another_length_is_named(large: Lab) -> None:
    message = large.execute(
        FETCH
        + """
import datajoint as dj
changed = (img.ROIdeltaF & epoch & 'roi_number = 301').fetch1()
img.ROIdeltaF.update1({**changed, 'dff_trace': np.zeros(3999, np.float32)})
try:
    traces.fetch_activity(epoch, 'dff').F
except dj.DataJointError as error:
    answer = str(error)
img.ROIdeltaF.update1(changed)
"""
    )
    assert "dff_trace of ROI" in message
    assert "'roi_number': 301" in message
    assert "has 3999 frames, the ROIs before it have 4000" in message


def test_what_mysql_can_never_take_is_refused_before_it_is_sent(mysql_server: Server) -> None:
    """Just below half of max_allowed_packet a value is stored and comes back; above, one line says so."""
    prefix = f"test_{uuid.uuid4().hex[:10]}_"
    code = f"""
import json
import datajoint as dj, numpy as np
from workflow.settings import load
from workflow.pipeline.connection import connect
from workflow.pipeline.computing import insert_chunked
connection = connect(load().database)
packet = connection.query('SELECT @@max_allowed_packet').fetchone()[0]
schema = dj.Schema({prefix + "big"!r})

@schema
class Big(dj.Manual):
    definition = '''
    number : int32
    ---
    values : <blob>
    '''

noise = np.random.default_rng(0).integers(0, 256, packet // 2, dtype=np.uint8)
fitting = noise[: packet // 2 - 4096]
insert_chunked(Big, [{{'number': 1, 'values': fitting}}])
assert np.array_equal((Big & {{'number': 1}}).fetch1('values'), fitting)
try:
    insert_chunked(Big, [{{'number': 2, 'values': noise}}])
except dj.DataJointError as error:
    message = str(error)
assert len(Big()) == 1  # the connection has not been lost
print(json.dumps([packet, message]))
"""
    try:
        result = mysql_server.run(["-c", code])
        assert result.returncode == 0, result.stderr
        packet, message = json.loads(result.stdout.splitlines()[-1])
        assert "\n" not in message
        assert "column values: a value of " in message
        assert f"max_allowed_packet of {packet} bytes" in message
    finally:
        mysql_server.drop_schemas(prefix)
