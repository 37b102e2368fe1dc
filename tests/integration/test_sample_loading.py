"""Samples reach the database whole, once, and nowhere else."""

import json
import os
import signal
import subprocess
import sys
import uuid
from contextlib import contextmanager

import numpy as np
import pytest
from databases import ROOT
from lab import Lab

from workflow.sample.synthetic import recordings

pytest_plugins = ("databases",)

#: A process with the tables at hand. It reads one JSON line at a time (code, and the values that the code
#: is given) and prints one: what the code left in ``answer``, the message of a SampleError, or the traceback
#: of anything else.
CONSOLE = """
import json, sys, traceback
import numpy as np
from workflow import settings
configured = settings.load()
from workflow.pipeline import exp2, img, lab, schemas, stimanal, svd
from workflow.pipeline.connection import connect
connect(configured.database)
schemas.activate(configured)
from workflow.sample import load
from workflow.sample.errors import SampleError
from workflow.sample.synthetic import recordings
TABLES = [
    lab.Subject, stimanal.MiceIncluded, exp2.Session, exp2.SessionEpoch, exp2.SessionEpochSomatotopy,
    img.Mesoscope, img.FOV, img.FOVEpoch, img.Plane, img.ROI, img.ROIBad, img.ROIBrainArea, img.ROIdeltaF,
    img.ROISpikes,
]
def rows(condition):
    return {table.__name__: len(table() & condition) for table in TABLES}
print("ready", flush=True)
for line in sys.stdin:
    code, values = json.loads(line)
    names = {**globals(), **values}
    try:
        exec(code, names)
        print(json.dumps({"answer": names["answer"]}), flush=True)
    except SampleError as error:
        print(json.dumps({"refusal": str(error)}), flush=True)
    except Exception:
        print(json.dumps({"traceback": traceback.format_exc()}), flush=True)
"""


class Console:
    """Talks to a process with the tables at hand."""

    def __init__(self, laboratory):
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", CONSOLE],
            env={**os.environ, **laboratory.environment()},
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout.readline() == "ready\n"  # the tables are declared, by one process

    def _say(self, code, values):
        self._process.stdin.write(json.dumps([code, values]) + "\n")
        self._process.stdin.flush()
        said = json.loads(self._process.stdout.readline())
        assert "traceback" not in said, said["traceback"]
        return said

    def ask(self, code, **values):
        """Run code and return what it leaves in ``answer``."""
        said = self._say(code, values)
        assert "answer" in said, said
        return said["answer"]

    def refusal(self, code, **values):
        """Run code that must raise a SampleError and return its message."""
        said = self._say(code, values)
        assert "refusal" in said, said
        return said["refusal"]

    def count(self, condition=()):
        return self.ask("answer = rows(condition or {})", condition=condition)

    def load(self, seed):
        return self.ask("answer = load.load_synthetic('small', seed).as_dict()", seed=seed)

    def load_suite2p(self, folder, **options):
        code = "answer = load.load_suite2p(folder, **options).as_dict()"
        return self.ask(code, folder=str(folder), options=options)

    def close(self):
        self._process.communicate(timeout=60)


@contextmanager
def open_laboratory(server):
    laboratory = Lab(server, f"sample_{uuid.uuid4().hex[:10]}_")
    try:
        yield laboratory
    finally:
        server.drop_schemas(laboratory.prefix)


@pytest.fixture(scope="module")
def lab(postgresql_server):
    with open_laboratory(postgresql_server) as laboratory:
        yield laboratory


@pytest.fixture(scope="module")
def console(lab):
    opened = Console(lab)
    try:
        yield opened
    finally:
        opened.close()


def animals(seed):
    return [
        {"subject_id": subject_id} for subject_id in sorted({s.subject_id for s in recordings("small", seed)})
    ]


def expected_rows(sessions):
    epochs = [(s, e) for s in sessions for e in s.epochs]
    rois = [roi for s in sessions for roi in s.rois]
    return {
        "Subject": 3,
        "MiceIncluded": 3,
        "Session": 6,
        "SessionEpoch": len(epochs),
        "SessionEpochSomatotopy": 1,
        "Mesoscope": 4,
        "FOV": 6,
        "FOVEpoch": len(epochs),
        "Plane": 10,
        "ROI": len(rois),
        "ROIBad": sum(roi.bad for roi in rois),
        "ROIBrainArea": len(rois),
        "ROIdeltaF": sum(len(s.rois) for s, _ in epochs),
        "ROISpikes": 0,
    }


def write_suite2p(folder, *, seed=0, n_rois=5, n_frames=200, spikes=True):
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    np.save(folder / "F.npy", 500 + 50 * rng.random((n_rois, n_frames), dtype=np.float32))
    np.save(folder / "Fneu.npy", 100 + 5 * rng.random((n_rois, n_frames), dtype=np.float32))
    np.save(folder / "iscell.npy", np.column_stack([np.arange(n_rois) != 1, rng.random(n_rois)]))
    pixels = {"xpix": np.arange(4), "ypix": np.arange(4), "lam": np.ones(4, "f4"), "radius": 3.5}
    np.save(
        folder / "stat.npy",
        np.array([{"med": (10 * i, 7 * i), **pixels} for i in range(n_rois)], dtype=object),
    )
    np.save(folder / "ops.npy", {"fs": 8.0, "Lx": 512, "Ly": 400, "meanImg": np.ones((400, 512), "f4")})
    if spikes:
        np.save(folder / "spks.npy", rng.random((n_rois, n_frames), dtype=np.float32))
    return folder


#: Compares the sample of seed 10 with its description; answers how many traces were compared.
COMPARE = """
answer = 0
for session in recordings("small", 10):
    rois = (img.ROI & session.key).to_dicts(order_by="roi_number")
    bad = set((img.ROIBad & session.key).to_arrays("roi_number"))
    areas = (img.ROIBrainArea & session.key).to_arrays("brain_area", order_by="roi_number")
    for row, area, roi in zip(rois, areas, session.rois, strict=True):
        assert (row["roi_centroid_x"], row["roi_centroid_y"], row["roi_radius"]) == (roi.x, roi.y, roi.radius)
        assert (row["plane_num"], row["roi_number_uid"]) == (roi.plane.plane_num, roi.uid)
        assert ((row["roi_number"] in bad), area) == (roi.bad, roi.brain_area)
    assert (img.FOV & session.key).fetch1("imaging_frame_rate") == session.nominal_frame_rate
    for epoch in session.epochs:
        key = {**session.key, "session_epoch_type": epoch.epoch_type, "session_epoch_number": epoch.number}
        assert (img.FOVEpoch & key).fetch1("imaging_frame_rate") == epoch.frame_rate
        stored = (exp2.SessionEpoch & key).fetch1()
        assert stored["session_epoch_end_time"] == epoch.end_time
        assert stored["flag_photostim_epoch"] == epoch.photostim
        traces = (img.ROIdeltaF & key).to_dicts(order_by="roi_number")
        for row, trace in zip(traces, epoch.dff(), strict=True):
            found = row["dff_trace"]
            assert (found.dtype, found.shape) == (trace.dtype, trace.shape)
            np.testing.assert_array_equal(found, trace)
            answer += 1
"""


# --- synthetic ------------------------------------------------------------------------------------


def test_what_is_loaded_is_what_was_described(lab, console):
    summary = lab.json("sample", "--size", "small", "--seed", "10")
    sessions = recordings("small", 10)
    assert not summary["already_present"]
    assert summary["message"].startswith("loaded synthetic small, seed 10")
    assert (summary["subjects"], summary["sessions"]) == (3, 6)
    assert summary["epochs"] == sum(len(s.epochs) for s in sessions)
    assert summary["rois"] == sum(len(s.rois) for s in sessions)
    assert summary["frames"] == sum(e.n_frames for s in sessions for e in s.epochs)
    assert console.count(animals(10)) == expected_rows(sessions)
    compared = console.ask(COMPARE)
    assert compared == summary["traces"]


def test_loading_again_changes_nothing(lab, console):
    first = console.load(11)
    before = console.count()
    again = lab.json("sample", "--seed", "11")
    assert again["already_present"]
    assert again["message"].startswith("nothing to do, already loaded: synthetic small, seed 11")
    assert {**again, "already_present": False, "message": ""} == {**first, "message": ""}
    assert console.count() == before


def test_samples_stand_side_by_side(console):
    console.load(12)
    console.load(13)
    assert console.count(animals(12)) == expected_rows(recordings("small", 12))
    assert console.count(animals(13)) == expected_rows(recordings("small", 13))


def test_animals_with_other_content_are_refused(lab, console):
    console.ask("lab.Subject.insert1([animal]); answer = 0", animal=animals(14)[1]["subject_id"])
    before = console.count()
    result = lab.workflow("sample", "--seed", "14")
    assert result.returncode == 2
    assert "choose another seed, or delete that animal first" in result.stderr.splitlines()[-1]
    assert result.stdout == ""
    assert console.count() == before


def test_a_sample_that_lost_a_trace_is_not_called_present(console):
    console.load(15)
    console.ask(
        "key = (img.ROIdeltaF & animals).keys(limit=1); (img.ROIdeltaF & key).delete_quick(); answer = 0",
        animals=animals(15),
    )
    message = console.refusal("load.load_synthetic('small', 15)")
    assert message.startswith(f"animal {animals(15)[0]['subject_id']} is in the database with other content")


def test_a_failure_in_the_middle_leaves_nothing(console):
    before = console.count()
    outcome = console.ask("""
def fail(done, total, what):
    if done > total / 2:
        raise InterruptedError
try:
    load.load_synthetic("small", 16, progress=fail)
except InterruptedError:
    answer = rows({})
""")
    assert outcome == before


def test_a_killed_loader_leaves_nothing(lab, console):
    before = console.count()
    process = lab.start("sample", "--seed", "17", "--size", "medium")
    try:
        assert any("traces" in line for line in process.stderr)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert console.count() == before
    assert not console.load(17)["already_present"]


def test_two_loaders_at_once(lab, console):
    processes = [lab.start("sample", "--seed", "18", "--json") for _ in range(2)]
    printed = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], printed
    assert sorted(json.loads(out)["already_present"] for out, _ in printed) == [False, True]
    assert console.count(animals(18)) == expected_rows(recordings("small", 18))


def test_impossible_seed(lab, console):
    before = console.count()
    result = lab.workflow("sample", "--seed", "10000")
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1] == (
        "run_workflow: the seed is 10000: it must be a whole number from 0 to 9999"
    )
    assert console.count() == before


def test_planted_components_are_what_the_pipeline_stores(console):
    console.load(19)
    stored = console.ask(
        """
svd.PopulationSVD.populate(animals)
answer = [
    [row["subject_id"], row["session"], row["session_epoch_number"], row["n_rois"],
     None if row["singular_values"] is None else row["singular_values"].tolist()]
    for row in (svd.PopulationSVD & animals & {"svd_params": "mesoscope"}).to_dicts()
]
""",
        animals=animals(19),
    )
    found = {tuple(row[:3]): (row[3], row[4]) for row in stored}
    mesoscope = [s for s in recordings("small", 19) if s.mesoscope]
    expected = {
        (s.subject_id, s.session, e.number): e.truth
        for s in mesoscope
        for e in s.epochs
        if e.somatotopy is None
    }
    assert found.keys() == expected.keys()
    for key, truth in expected.items():
        n_rois, s = found[key]
        if truth is None:
            assert s is None
            continue
        assert n_rois == len(truth.loadings)
        np.testing.assert_allclose(s[: truth.latents], truth.singular_values, rtol=0.04)
        assert s[truth.latents] < 1.05 * truth.noise_edge


# --- suite2p ----------------------------------------------------------------------------------------


def test_a_folder_becomes_an_epoch_of_its_own(lab, console, tmp_path):
    folder = write_suite2p(tmp_path / "plane0", seed=1)
    options = ("--brain-area", "MOs", "--epoch-type", "behav_only")
    summary = lab.json("sample", "--suite2p", str(folder), *options)
    assert not summary["already_present"]
    assert (summary["sessions"], summary["epochs"], summary["rois"], summary["traces"]) == (1, 1, 5, 10)
    stored = console.ask(
        """
recording = load.read_suite2p(folder)
view = [row for row in img.FOV.to_dicts() if row["fov_name"].startswith(recording.fingerprint)]
assert len(view) == 1 and view[0]["fov_name"].endswith(" plane0")
key = {name: view[0][name] for name in img.FOV().primary_key}
assert bool(stimanal.MiceIncluded & key) and not bool(img.Mesoscope & key)
epoch = (exp2.SessionEpoch & key).fetch1()
assert (epoch["session_epoch_type"], epoch["session_epoch_number"]) == ("behav_only", 1)
assert (img.FOVEpoch & key).fetch1("imaging_frame_rate") == 8.0
assert (img.Plane & key).fetch1("mean_img").shape == (400, 512)
rois = (img.ROI & key).to_dicts(order_by="roi_number")
assert [(row["roi_centroid_x"], row["roi_centroid_y"]) for row in rois] == [(7 * i, 10 * i) for i in range(5)]
np.testing.assert_array_equal(rois[0]["roi_x_pix"], np.arange(4))
assert (img.ROIBad & key).to_arrays("roi_number").tolist() == [2]
assert set((img.ROIBrainArea & key).to_arrays("brain_area")) == {"MOs"}
dff = (img.ROIdeltaF & key).to_arrays("dff_trace", order_by="roi_number")
np.testing.assert_array_equal(np.stack(dff), recording.dff)
spikes = (img.ROISpikes & key).to_arrays("spikes_trace", order_by="roi_number")
np.testing.assert_array_equal(np.stack(spikes), recording.spikes)
svd.PopulationSVD.populate(key)
binned = svd.PopulationSVD & key & {"svd_params": "other_0.5s"}
answer = binned.fetch1("n_rois", "n_frames", "skip_reason")
""",
        folder=str(folder),
    )
    assert stored == [4, 50, ""]


def test_the_same_files_are_loaded_once(lab, console, tmp_path):
    folder = write_suite2p(tmp_path / "plane0", seed=2)
    place = console.load_suite2p(folder)["message"].split(" as ")[1]
    before = console.count()
    moved = str(folder.rename(tmp_path / "elsewhere"))
    again = lab.json("sample", "--suite2p", moved)
    assert again["already_present"]
    assert again["message"] == f"nothing to do, already loaded: {place}"
    for option in ({"epoch_type": "behav_only"}, {"frame_rate": 9.0}, {"session": 7}, {"brain_area": "MOp"}):
        said = console.refusal("load.load_suite2p(folder, **option)", folder=moved, option=option)
        name, value = next(iter(option.items()))
        assert said == (
            f"{moved} is in the database already, as {place} at 8 Hz, not as asked "
            f"({name.replace('_', ' ')} {value}): ask for that one, or delete its session first"
        )
    assert console.count() == before


def test_numbers_that_are_not_given_are_the_next_free_ones(console, tmp_path):
    def load(name, seed, spikes=True, **options):
        folder = write_suite2p(tmp_path / name, seed=seed, spikes=spikes)
        return console.load_suite2p(folder, **options)["message"].split(" as ")[1]

    assert load("a", 3, subject_id=77) == "epoch spont_only 1 of session 1 of animal 77"
    assert load("b", 4, subject_id=77) == "epoch spont_only 1 of session 2 of animal 77"
    same = {"subject_id": 77, "session": 2, "epoch_type": "behav_only"}
    assert load("c", 5, spikes=False, **same) == "epoch behav_only 2 of session 2 of animal 77"
    new = [int(load(name, seed).rsplit(" ", 1)[1]) for name, seed in (("d", 6), ("e", 7))]
    assert new[0] >= 900_001
    assert new[1] == new[0] + 1
    assert console.count([{"subject_id": 77}]) == {
        **dict.fromkeys(("Subject", "MiceIncluded"), 1),
        "Session": 2,
        **dict.fromkeys(("SessionEpoch", "FOV", "FOVEpoch", "Plane", "ROIBad"), 3),
        **dict.fromkeys(("Mesoscope", "SessionEpochSomatotopy", "ROIBrainArea"), 0),
        **dict.fromkeys(("ROI", "ROIdeltaF"), 15),
        "ROISpikes": 10,
    }
    times = console.ask("""
epochs = exp2.SessionEpoch & {"subject_id": 77, "session": 2}
answer = epochs.to_arrays("session_epoch_start_time", order_by="session_epoch_number").tolist()
""")
    assert times == [0.0, 25.0]


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"brain_area": "MOss"}, "the brain area is 'MOss': it must be one of "),
        ({"epoch_type": "sleep"}, "the epoch type is 'sleep': it must be one of spont_only, behav_only, "),
        ({"subject_id": 0}, "the subject id is 0: it must be a whole number from 1 to 2147483647"),
        ({"subject_id": 3_000_000_000}, "the subject id is 3000000000: it must be"),
        ({"session": 40_000}, "the session is 40000: it must be a whole number from 1 to 32767"),
        ({"frame_rate": 0}, "the frame rate is '0': it must be a number from 0.001 to 1,000,000"),
    ],
)
def test_impossible_options_change_nothing(console, tmp_path, option, said):
    before = console.count()
    folder = str(write_suite2p(tmp_path / "plane0", seed=8))
    assert console.refusal("load.load_suite2p(folder, **option)", folder=folder, option=option).startswith(
        said
    )
    assert console.count() == before


def test_a_damaged_folder_is_refused_before_the_database_is_asked(lab, tmp_path):
    folder = write_suite2p(tmp_path / "plane0", seed=9)
    whole = (folder / "F.npy").read_bytes()
    (folder / "F.npy").write_bytes(whole[:-1])
    result = lab.workflow("sample", "--suite2p", str(folder), DJ_PORT="1")
    assert result.returncode == 2
    said = result.stderr.splitlines()[-1]
    assert said.startswith(f"run_workflow: {folder / 'F.npy'}: it is truncated")


def test_a_laboratory_schema_never_receives_samples(lab, console):
    before = console.count()
    result = lab.workflow("sample", "--seed", "20", WORKFLOW_UPSTREAM="read")
    assert result.returncode == 2
    assert "WORKFLOW_UPSTREAM=declare" in result.stderr
    assert console.count() == before


def test_the_loader_refuses_tables_that_it_did_not_declare():
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "from workflow.sample import load\nload.load_synthetic()"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    said = "SampleError: the upstream tables are read, not declared by us: sample data never goes"
    assert said in result.stderr.splitlines()[-1]


def test_mysql_holds_the_same(mysql_server, tmp_path):
    with open_laboratory(mysql_server) as laboratory:
        console = Console(laboratory)
        try:
            loaded = console.load(10)
            assert console.ask(COMPARE) == loaded["traces"]
            assert console.load(10)["already_present"]
            folder = write_suite2p(tmp_path / "plane0", seed=1)
            assert not console.load_suite2p(folder)["already_present"]
            assert console.load_suite2p(folder)["already_present"]
            before = console.count()
            refused = console.refusal("load.load_suite2p(folder, session=9)", folder=str(folder))
            assert "not as asked (session 9)" in refused
            assert console.count() == before
        finally:
            console.close()
