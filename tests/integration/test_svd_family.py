"""The decompositions of areas, of blocks of an epoch, of equally large parts, and of random subsets."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from databases import Server
from lab import Lab, counts

pytest_plugins = ("databases",)

TABLES = (
    "area_svd.AreaSVD",
    "partition_svd.PartitionSVD",
    "matched_svd.MatchedAreaSVD",
    "shuffle.AreaShuffle",
)
#: Three epochs of a session on the mesoscope, and the epoch of a single frame.
WHERE = "(subject_id = 100011 AND session = 1) OR session_epoch_number = 3"
CHOSEN = [*(word for table in TABLES for word in ("--tables", table)), "--where", WHERE]

#: Areas that nothing, or not everything, can be computed for; parameters that suit 80 ROIs; spikes; and an
#: epoch of 900 frames with traces of bad ROIs only.
ODD_THINGS = """
import numpy as np
from workflow.pipeline import area_svd, matched_svd, partition_svd, shuffle
session = {'subject_id': 100011, 'session': 1}
bad = (img.ROI & session & img.ROIBad).keys(order_by='roi_number')
good = ((img.ROI & session) - img.ROIBad).keys(order_by='roi_number')
lab.BrainArea.insert([(name, None) for name in ('none', 'bad', 'one', 'flat', 'two', 'flat once')])
img.ROIBrainArea.insert({**roi, 'brain_area': 'bad'} for roi in bad[:3])
img.ROIBrainArea.insert1({**good[0], 'brain_area': 'one'})
img.ROIBrainArea.insert({**roi, 'brain_area': 'two'} for roi in good[3:5])
img.ROIBrainArea.insert({**roi, 'brain_area': 'flat'} for roi in good[1:3])
img.ROIBrainArea.insert({**roi, 'brain_area': 'flat once'} for roi in good[5:9])
for roi in good[1:3]:
    for epoch in (exp2.SessionEpoch & session).keys():
        n = np.size((img.ROIdeltaF & epoch & roi).fetch1('dff_trace'))
        img.ROIdeltaF.update1({**epoch, **roi, 'dff_trace': np.full(n, 0.5)})
first = (exp2.SessionEpoch & session & 'session_epoch_number = 1').fetch1('KEY')
trace = np.array((img.ROIdeltaF & first & good[5]).fetch1('dff_trace')).ravel()
trace[:450] = 1.0
img.ROIdeltaF.update1({**first, **good[5], 'dff_trace': trace})
spikes = [
    {'spikes_trace': 3 * np.asarray(row.pop('dff_trace'), np.float64).reshape(-1, 1) + 1, **row}
    for row in (img.ROIdeltaF & first).to_dicts()
]
img.ROISpikes.insert(spikes, allow_direct_insert=True)
last = {**first, 'session_epoch_number': 4}
exp2.SessionEpoch.insert1({**(exp2.SessionEpoch & first).fetch1(), **last})
img.FOVEpoch.insert1({**(img.FOVEpoch & first).fetch1(), **last}, allow_direct_insert=True)
traces = (img.ROIdeltaF & first & img.ROIBad).to_dicts()
img.ROIdeltaF.insert([{**row, **last} for row in traces], allow_direct_insert=True)
area_svd.AreaSVDParams.insert1(('spikes', 'spikes', 'mesoscope', 0.0, 0.0))
matched_svd.MatchedAreaSVDParams.insert1(('8x400', 'dff', 'mesoscope', 0.2, 0.0, 8, 400, 5, 11))
matched_svd.MatchedAreaSVDParams.insert1(('2x100', 'dff', 'mesoscope', 0.0, 0.0, 2, 100, 2, 11))
matched_svd.MatchedAreaSVDParams.insert1(('8x500', 'dff', 'mesoscope', 0.2, 0.0, 8, 500, 5, 11))
partition_svd.PartitionSVDParams.insert1(('300', 'dff', 'mesoscope', 0.3, 0.0, 'blocks', 300, 7))
shuffle.AreaShuffleParams.insert1(('12x8', 'dff', 'mesoscope', 0.0, 0.0, 8, 12, 11))
answer = True
"""

#: What the checks share: the traces of a key, straight from the table, and their normal form.
TOOLS = """
import numpy as np
from workflow.pipeline import area_svd, matched_svd, partition_svd, shuffle
ORDER = ['fov_num', 'plane_num', 'channel_num', 'roi_number']

def traces(key, area=None, start=0, stop=None, c=1):
    rois = (img.ROIdeltaF & {n: key[n] for n in exp2.SessionEpoch.primary_key}) - img.ROIBad
    if area is not None:
        rois = rois & (img.ROIBrainArea & {'brain_area': area}).proj()
    rows = rois.to_dicts(order_by=ORDER)
    F = np.stack([np.ravel(row['dff_trace']).astype(float) for row in rows])
    F = F[:, : F.shape[1] // c * c].reshape(len(F), -1, c).mean(axis=2)[:, start:stop]
    return F, [row['roi_number'] for row in rows]

def normal(F):
    return (F - F.mean(axis=1, keepdims=True)) / F.std(axis=1, keepdims=True)

def check(row, F, numbers, part, key, limit):
    unused = {r['roi_number'] for r in (part.UnusedROI & key).to_dicts()}
    keep = [i for i, n in enumerate(numbers) if n not in unused]
    stored = (part.ROI & key).to_dicts(order_by=ORDER)
    used = [i for i in keep if numbers[i] in {r['roi_number'] for r in stored}]
    assert [r['roi_number'] for r in stored] == [numbers[i] for i in used]
    Z = normal(F[used])
    assert (row['n_rois'], row['n_frames']) == Z.shape, (row, Z.shape)
    s = row['singular_values']
    direct = np.linalg.svd(Z, compute_uv=False)
    assert np.allclose(s, direct, atol=1e-7 * s[0]) and abs((s**2).sum() / Z.size - 1) < 1e-9
    k = row['k90']
    assert (s[:k] ** 2).sum() >= 0.9 * Z.size * (1 - 1e-9) and (s[:k - 1] ** 2).sum() < 0.9 * Z.size
    Vt = np.stack([r['time_course'] for r in (part.Component & key).to_dicts(order_by='component')])
    assert Vt.dtype == np.float32 and Vt.shape == (min(limit, np.count_nonzero(s)), Z.shape[1])
    US = Z @ Vt.T
    assert np.allclose(US.T @ US, np.diag(s[: len(Vt)] ** 2), atol=1e-4 * s[0] ** 2)
    U = np.stack([r['weights'] for r in stored])
    both = min(len(Vt), k)
    assert U.dtype == np.float32 and U.shape == (len(used), min(k, limit))
    assert np.allclose(US[:, :both], U[:, :both] * s[:both], atol=1e-4 * s[0])
    return keep
"""


@pytest.fixture(scope="module")
def family(postgresql_server: Server) -> Iterator[tuple[Lab, dict[str, Any]]]:
    """A laboratory with odd areas in it, and the summary of a run of these tables."""
    laboratory = Lab(postgresql_server, f"test_{uuid.uuid4().hex[:10]}_")
    assert laboratory.workflow("sample").returncode == 0
    assert laboratory.execute(ODD_THINGS)
    summary = laboratory.json("run", *CHOSEN)
    yield laboratory, summary
    postgresql_server.drop_schemas(laboratory.prefix)


def test_everything_due_is_done_or_skipped_with_a_reason(family: tuple[Lab, dict[str, Any]]) -> None:
    lab, summary = family
    found = counts(summary)
    assert set(found) == set(TABLES)
    for table, (due, done, failed, skipped) in found.items():
        assert failed == 0, [key for key in summary["keys"] if key["outcome"] == "failed"]
        assert due == done + skipped
        assert done > 0, table
        assert skipped > 0, table
    reasons = {key["reason"] for key in summary["keys"] if key["outcome"] == "skipped"}
    assert "too few usable ROIs: 1, needs 2" in reasons  # the area of one
    assert "too few usable ROIs: 0, needs 2" in reasons  # the area of two constant traces
    assert "too short: 1 time bin(s), needs 2" in reasons  # the epoch of one frame
    assert "too short: 1 time bin(s), not one block of full length" in reasons
    assert any(reason.startswith("too short: 900 time bin(s), needs 1500") for reason in reasons)
    assert any(reason.endswith(", needs 500") for reason in reasons)
    assert [entry["due"] for entry in lab.json("plan", *CHOSEN)] == [0, 0, 0, 0]


def test_only_areas_with_good_rois_are_due(family: tuple[Lab, dict[str, Any]]) -> None:
    """Neither an area without ROIs, nor one of bad ROIs only, nor sensory mapping, nor other microscopes."""
    lab, _ = family
    answer = lab.execute(
        TOOLS
        + """
answer = {}
for table in (area_svd.AreaSVD, matched_svd.MatchedAreaSVD, shuffle.AreaShuffle):
    source = table().key_source
    answer[table.__name__] = {
        'areas': sorted({key['brain_area'] for key in source.keys()}),
        'somatotopy': len(source & exp2.SessionEpochSomatotopy.proj()),
        'other': len(source - img.Mesoscope.proj()),
        'keys': len(source),
        'distinct': len({tuple(sorted(key.items())) for key in source.keys()}),
    }
blocks = partition_svd.PartitionSVD().key_source
answer['blocks'] = {
    'somatotopy': len(blocks & exp2.SessionEpochSomatotopy.proj()),
    'mesoscope': sorted({k['partition_svd_params'] for k in (blocks & img.Mesoscope.proj()).keys()}),
    'other': sorted({k['partition_svd_params'] for k in (blocks - img.Mesoscope.proj()).keys()}),
}
answer['expected'] = sorted({
    row['brain_area'] for row in (img.ROIBrainArea - img.ROIBad & img.Mesoscope).to_dicts()
})
answer['spikes'] = [
    (key['subject_id'], key['session'], key['session_epoch_number'])
    for key in (area_svd.AreaSVD().key_source & "area_svd_params = 'spikes'").keys()
]
"""
    )
    blocks, expected, spikes = answer.pop("blocks"), answer.pop("expected"), answer.pop("spikes")
    assert not {"none", "bad"} & set(expected)
    assert {"one", "two", "flat", "MOs"} <= set(expected)
    for source in answer.values():
        assert source["areas"] == expected
        assert source["somatotopy"] == source["other"] == 0
        assert source["keys"] == source["distinct"] > 0
    assert blocks == {
        "somatotopy": 0,
        "mesoscope": ["300", "mesoscope_blocks", "mesoscope_quarters"],
        "other": ["other_0.2s_blocks", "other_0.2s_quarters"],
    }
    assert {tuple(epoch) for epoch in spikes} == {(100011, 1, 1)}


def test_an_epoch_of_bad_rois_only_is_not_called_too_short(family: tuple[Lab, dict[str, Any]]) -> None:
    """Nothing is fetched of such an epoch, so nothing is known of its length."""
    lab, _ = family
    tables = ("PopulationSVD", "ComponentTimescale", "LDS", "PartitionSVD", "SharedVariance")
    chosen = [word for table in tables for word in ("--tables", table)]
    lab.json("run", *chosen, "--where", "session_epoch_number = 4")
    reasons = lab.execute("""
from workflow.pipeline import lds, partition_svd, shared_variance, timescale
last = {'subject_id': 100011, 'session': 1, 'session_epoch_number': 4}
answer = {
    table.__name__: sorted(set((table & last).to_arrays('skip_reason').tolist()))
    for table in (svd.PopulationSVD, timescale.ComponentTimescale, lds.LDS, partition_svd.PartitionSVD,
                  shared_variance.SharedVariance)
}
""")
    none = "too few usable ROIs: 0, needs 2"
    assert reasons == {
        "PopulationSVD": [none],
        "ComponentTimescale": [f"PopulationSVD was skipped: {none}"],
        "LDS": [f"PopulationSVD was skipped: {none}"],
        "PartitionSVD": [none],
        "SharedVariance": ["too few usable ROIs: 0 and 0 in the two halves, needs 2 in each"],
    }


def test_an_area_is_decomposed_like_a_field_of_view(family: tuple[Lab, dict[str, Any]]) -> None:
    lab, _ = family
    answer = lab.execute(
        TOOLS
        + """
answer = []
for row in (area_svd.AreaSVD & "skip_reason = ''" & "area_svd_params <> 'spikes'").to_dicts():
    key = {name: row[name] for name in area_svd.AreaSVD.primary_key}
    c = {'mesoscope': 1, 'mesoscope_1.5s': 15}[row['area_svd_params']]
    assert row['frame_rate'] == 9.37 and abs(row['bin_width'] - c / 9.37) < 1e-12
    F, numbers = traces(key, row['brain_area'], c=c)
    check(row, F, numbers, area_svd.AreaSVD, key, 1000)
    answer.append([row['brain_area'], row['n_rois']])
flat = area_svd.AreaSVD & {'brain_area': 'flat', 'area_svd_params': 'mesoscope'}
reasons = {row['reason'] for row in (area_svd.AreaSVD.UnusedROI & flat).to_dicts()}
assert reasons == {'constant'} and len(area_svd.AreaSVD.UnusedROI & flat) == 2 * len(flat) > 0
"""
    )
    assert len(answer) >= 30
    assert ["two", 2] in answer


def test_spikes_of_another_scale_and_shape_give_the_same(family: tuple[Lab, dict[str, Any]]) -> None:
    """They were stored as column vectors in double precision, three times the dF/F, plus one."""
    lab, _ = family
    answer = lab.execute(
        TOOLS
        + """
answer = 0
spikes = (area_svd.AreaSVD & "area_svd_params = 'spikes'" & "skip_reason = ''").to_dicts()
for row in spikes:
    names = [name for name in area_svd.AreaSVD.primary_key if name != 'area_svd_params']
    twin = area_svd.AreaSVD & {name: row[name] for name in names} & "area_svd_params = 'mesoscope'"
    s = twin.fetch1('singular_values')
    assert np.allclose(row['singular_values'], s, atol=1e-6 * s[0]), row['brain_area']
    answer += 1
"""
    )
    assert answer >= 5


def test_blocks_are_decomposed_one_by_one(family: tuple[Lab, dict[str, Any]]) -> None:
    lab, _ = family
    answer = lab.execute(
        TOOLS
        + """
answer = {}
T = partition_svd.PartitionSVD
assert T().heading['n_rois'].comment == 'good ROIs with traces; each block has its own N'
for row in (T & "skip_reason = ''" & "subject_id = 100011").to_dicts():
    key = {name: row[name] for name in T.primary_key}
    params = (partition_svd.PartitionSVDParams & key).fetch1()
    c = 3 if params['time_bin'] else 1
    blocks = (T.Partition & key).to_dicts(order_by='partition')
    assert len(blocks) == row['n_partitions']
    for i, block in enumerate(blocks):
        assert block['partition'] == i and block['first_frame'] == i * block['n_frames']
        start, stop = block['first_frame'], block['first_frame'] + block['n_frames']
        F, numbers = traces(key, None, start, stop, c)
        place = {**key, 'partition': i}
        keep = check(block, F, numbers, T, place, params['n_components'])
        assert len(keep) == block['n_rois'] < row['n_rois'] == len(numbers)
        assert abs(block['bin_width'] - c / 9.37) < 1e-12
    label = f"{row['partition_svd_params']} {row['session_epoch_type']} {row['session_epoch_number']}"
    answer[label] = [len(blocks), row['n_frames'], blocks[0]['n_frames']]
halves = (T.Partition & "session_epoch_number = 1" & "subject_id = 100011" & "session = 1")
halves = (halves & "partition_svd_params = 'mesoscope_quarters'").to_dicts(order_by='partition')
assert halves[0]['n_rois'] == halves[1]['n_rois'] - 1  # one trace is flat in the first half only
"""
    )
    assert answer["mesoscope_quarters spont_only 1"] == [2, 900, 450]
    assert answer["mesoscope_quarters behav_only 2"] == [4, 1200, 300]
    assert answer["mesoscope_quarters spont_photo 3"] == [4, 900, 225]
    assert answer["300 spont_only 1"] == [1, 300, 300]
    assert answer["300 behav_only 2"] == [1, 400, 300]
    assert not any("blocks" in label for label in answer)


def test_equal_parts_of_areas_are_drawn_from_a_seed_that_is_stored(
    family: tuple[Lab, dict[str, Any]],
) -> None:
    lab, _ = family
    answer = lab.execute(
        TOOLS
        + """
from workflow.pipeline.seeds import seed_for
answer = []
T = matched_svd.MatchedAreaSVD
for row in (T & "skip_reason = ''" & "matched_area_svd_params = '8x400'").to_dicts():
    key = {name: row[name] for name in T.primary_key}
    start = row['first_frame']
    F, numbers = traces(key, row['brain_area'], start, start + 400, 2)
    keep = check(row, F, numbers, T, key, 5)
    assert row['n_rois'] == 8 and row['n_frames'] == 400 and len(keep) == row['n_available'] >= 8
    n_bins = traces(key, row['brain_area'], c=2)[0].shape[1]
    assert row['seed'] == seed_for(key, 11)
    rng = np.random.default_rng(row['seed'])
    assert start == int(rng.integers(n_bins - 400 + 1))
    drawn = np.sort(rng.choice(len(keep), 8, replace=False, shuffle=False))
    stored = [r['roi_number'] for r in (T.ROI & key).to_dicts(order_by=ORDER)]
    assert stored == [numbers[keep[i]] for i in drawn]
    answer.append([row['first_frame'], *stored])
flat = T & {'brain_area': 'flat', 'matched_area_svd_params': '2x100'}
assert set(flat.to_arrays('skip_reason')) == {'too few usable ROIs: 0, needs 2'}
assert {row['reason'] for row in (T.UnusedROI & flat).to_dicts()} == {'constant'}
assert all(row['seed'] == seed_for({n: row[n] for n in T.primary_key}, 0)
           for row in (T & "matched_area_svd_params = 'mesoscope_500x1500'").to_dicts())
"""
    )
    assert len(answer) >= 5
    assert len({tuple(choice) for choice in answer}) == len(answer)
    assert len({choice[0] for choice in answer}) > 2


def test_random_subsets_are_those_of_the_stored_seed(family: tuple[Lab, dict[str, Any]]) -> None:
    lab, _ = family
    answer = lab.execute(
        TOOLS
        + """
answer = 0
T = shuffle.AreaShuffle
for row in (T & "skip_reason = ''").to_dicts():
    key = {name: row[name] for name in T.primary_key}
    F, numbers = traces(key, row['brain_area'])
    unused = {r['roi_number'] for r in (T.UnusedROI & key).to_dicts()}
    Z = normal(F[[i for i, n in enumerate(numbers) if n not in unused]])
    assert (row['n_rois'], row['n_frames']) == Z.shape
    parts = (T.Shuffle & key).to_dicts(order_by='shuffle')
    assert [part['shuffle'] for part in parts] == list(range(12))
    rng = np.random.default_rng(row['seed'])
    for part in parts:
        rows = np.sort(rng.choice(len(Z), 8, replace=False, shuffle=False))
        s = np.linalg.svd(Z[rows], compute_uv=False)
        assert np.allclose(part['singular_values'], s, atol=1e-9 * s[0])
        k = part['k90']
        assert (s[:k] ** 2).sum() >= 0.9 * 8 * Z.shape[1] > (s[:k - 1] ** 2).sum()
    answer += 1
"""
    )
    assert answer >= 5


def test_the_same_seeds_give_the_same_bits(family: tuple[Lab, dict[str, Any]]) -> None:
    """Deleted and computed again, on one BLAS thread."""
    lab, _ = family
    collect = """
import hashlib
answer = {}
for table, part, order in ((matched_svd.MatchedAreaSVD, matched_svd.MatchedAreaSVD.Component, 'component'),
                           (shuffle.AreaShuffle, shuffle.AreaShuffle.Shuffle, 'shuffle')):
    some = table & "subject_id = 100011" & "session_epoch_number = 1" & "brain_area = 'MOs'"
    rows = (part & some).to_dicts(order_by='KEY')
    assert rows
    blobs = [v.tobytes() for row in rows for v in row.values() if isinstance(v, np.ndarray)]
    answer[table.__name__] = hashlib.sha256(b''.join(blobs)).hexdigest()
    some.delete()
"""
    before = lab.execute(TOOLS + collect)
    words = ["--tables", "matched_svd.*", "--tables", "shuffle.*", "--where", WHERE]
    again = counts(lab.json("run", *words))
    assert all(done > 0 and failed == 0 for _, done, failed, _ in again.values())
    assert lab.execute(TOOLS + collect) == before


@pytest.mark.parametrize(
    ("table", "row", "named"),
    [
        ("area_svd.AreaSVDParams", ("x", "dff", "mesoscope", -1.0, 0.0), "time_bin"),
        ("area_svd.AreaSVDParams", ("x", "dff", "mesoscope", 0.0, -1.0), "threshold"),
        ("matched_svd.MatchedAreaSVDParams", ("x", "dff", "mesoscope", 0.0, 0.0, 1, 9, 1, 0), "subset_rois"),
        (
            "matched_svd.MatchedAreaSVDParams",
            ("x", "dff", "mesoscope", 0.0, 0.0, 9, 1, 1, 0),
            "subset_frames",
        ),
        (
            "matched_svd.MatchedAreaSVDParams",
            ("x", "dff", "mesoscope", 0.0, 0.0, 9, 99, 10, 0),
            "n_components",
        ),
        ("shuffle.AreaShuffleParams", ("x", "dff", "mesoscope", 0.0, 0.0, 1, 9, 0), "subset_rois"),
        ("shuffle.AreaShuffleParams", ("x", "dff", "mesoscope", 0.0, 0.0, 9, 0, 0), "n_shuffles"),
        (
            "partition_svd.PartitionSVDParams",
            ("x", "dff", "mesoscope", 0.0, 0.0, "thirds", 9, 9),
            "scheme is 'thirds', must be one of quarters, blocks",
        ),
        ("partition_svd.PartitionSVDParams", ("x", "dff", "other", 0.0, 0.0, "blocks", 1, 9), "block_frames"),
        ("partition_svd.PartitionSVDParams", ("x", "dff", "other", 0.0, 0.0, "blocks", 9, 0), "n_components"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(
    family: tuple[Lab, dict[str, Any]], table: str, row: tuple[Any, ...], named: str
) -> None:
    lab, _ = family
    message = lab.execute(f"""
import datajoint as dj
from workflow.pipeline import area_svd, matched_svd, partition_svd, shuffle
try:
    {table}.insert1(json.loads({json.dumps(row)!r}))
except dj.DataJointError as error:
    answer = str(error)
assert not len({table}() & {{{table}().primary_key[0]: 'x'}})
""")
    assert named in message
    assert "\n" not in message
