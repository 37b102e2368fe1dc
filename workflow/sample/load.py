"""Load synthetic and suite2p recordings into the upstream tables, all or nothing.

The tables must be bound (``workflow.pipeline.schemas.activate``) and declared by us: sample data never
goes into tables that a laboratory declared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from datajoint.errors import DuplicateError

from workflow.pipeline import exp2, img, lab, stimanal
from workflow.sample.errors import SampleError
from workflow.sample.insert import insert_sessions, trace_count
from workflow.sample.placement import Wanted, describe, find, place
from workflow.sample.recording import Progress, Session
from workflow.sample.suite2p import Suite2pRecording, read_suite2p
from workflow.sample.synthetic import recordings

__all__ = ["LoadSummary", "load_recording", "load_suite2p", "load_synthetic", "read_suite2p"]


@dataclass(frozen=True)
class LoadSummary:
    """What a sample consists of, and whether it was there already.

    ``frames`` is summed over epochs, ``traces`` counts dF/F and deconvolved traces together.
    """

    subjects: int
    sessions: int
    epochs: int
    rois: int
    traces: int
    frames: int
    already_present: bool
    message: str

    def as_dict(self) -> dict[str, Any]:
        """Give the same as a dictionary that JSON can hold."""
        return asdict(self)


def load_synthetic(size: str = "small", seed: int = 1, *, progress: Progress | None = None) -> LoadSummary:
    """Load a synthetic sample.

    Parameters
    ----------
    size : {'small', 'medium', 'large'}
        How much.
    seed : int
        From 0 to 9999. Another size or seed is another sample with animals of its own.
    progress : callable, optional
        Called with (traces inserted, traces in all, what).

    Returns
    -------
    LoadSummary

    Raises
    ------
    SampleError
        If there is no such size or seed, if the tables are a laboratory's, or if the sample's animals are
        in the database with other content.
    """
    sessions = recordings(size, seed)
    _require_declared()
    what = f"{sessions[0].label}: animals {sessions[0].subject_id} to {sessions[-1].subject_id}"
    if not _is_present(sessions):
        try:
            _insert_all(sessions, progress)
        except DuplicateError:
            if not _is_present(sessions):  # else somebody loaded the same sample at the same time
                raise
        else:
            return _summary(sessions, present=False, message=f"loaded {what}")
    return _summary(sessions, present=True, message=f"nothing to do, already loaded: {what}")


def load_suite2p(
    folder: Path | str,
    *,
    frame_rate: float | None = None,
    subject_id: int | None = None,
    session: int | None = None,
    epoch_type: str = "spont_only",
    brain_area: str | None = None,
    progress: Progress | None = None,
) -> LoadSummary:
    """Read a suite2p output folder and load it; see `read_suite2p` and `load_recording`."""
    return load_recording(
        read_suite2p(folder, frame_rate),
        subject_id=subject_id,
        session=session,
        epoch_type=epoch_type,
        brain_area=brain_area,
        progress=progress,
    )


def load_recording(
    recording: Suite2pRecording,
    *,
    subject_id: int | None = None,
    session: int | None = None,
    epoch_type: str = "spont_only",
    brain_area: str | None = None,
    progress: Progress | None = None,
) -> LoadSummary:
    """Load a suite2p recording as an epoch, and a field of view, of its own.

    The recording is recognised by a digest of its files, which is stored in the name of the field of
    view. One that is there already is not loaded again.

    Parameters
    ----------
    recording : Suite2pRecording
        What `read_suite2p` read.
    subject_id : int, optional
        The animal; a new one if not given. It becomes part of the study.
    session : int, optional
        The animal's session; the next free one if not given.
    epoch_type : {'spont_only', 'behav_only', 'spont_photo'}
        Kind of epoch; its number is the next free one of the session.
    brain_area : str, optional
        The area that all ROIs lie in.
    progress : callable, optional
        Called with (traces inserted, traces in all, what).

    Returns
    -------
    LoadSummary

    Raises
    ------
    SampleError
        If an argument is impossible, if the tables are a laboratory's, or if the recording is in the
        database elsewhere than asked for.
    """
    wanted = Wanted(subject_id, session, epoch_type, brain_area)
    wanted.validate()
    _require_declared()
    wanted.validate_brain_area()
    found = find(recording)
    if found is not None:
        wanted.compare(found, recording)
        return _summary([found], present=True, message=f"nothing to do, already loaded: {describe(found)}")
    placed = place(recording, wanted)
    try:
        _insert_all([placed], progress)
    except DuplicateError:
        raise SampleError(
            f"{describe(placed)} was taken by another program while {recording.folder} was being loaded: "
            "load it again"
        ) from None
    notes = "".join(f"; {note}" for note in recording.notes)
    return _summary(
        [placed], present=False, message=f"loaded {recording.folder} as {describe(placed)}{notes}"
    )


def _require_declared() -> None:
    undeclared = [m.__name__ for m in (lab, exp2, img, stimanal) if not m.schema.is_activated()]
    if undeclared:
        raise SampleError(
            "the upstream tables are read, not declared by us: sample data never goes into a laboratory's "
            "own tables; set WORKFLOW_UPSTREAM=declare and, on a shared server, other WORKFLOW_SCHEMA_* names"
        )


def _insert_all(sessions: Sequence[Session], progress: Progress | None) -> None:
    with lab.schema.connection.transaction:
        insert_sessions(sessions, progress)


def _summary(sessions: Sequence[Session], *, present: bool, message: str) -> LoadSummary:
    return LoadSummary(
        subjects=len({s.subject_id for s in sessions}),
        sessions=len(sessions),
        epochs=sum(len(s.epochs) for s in sessions),
        rois=sum(len(s.rois) for s in sessions),
        traces=sum(trace_count(s) for s in sessions),
        frames=sum(epoch.n_frames for s in sessions for epoch in s.epochs),
        already_present=present,
        message=message,
    )


def _is_present(sessions: Sequence[Session]) -> bool:
    """Whether the sample is in the database; something else in its place is an error."""
    subjects = [{"subject_id": subject_id} for subject_id in sorted({s.subject_id for s in sessions})]
    present = sorted((lab.Subject() & subjects).to_arrays("subject_id").tolist())
    if not present:
        return False
    expected = sorted((s.subject_id, s.session, len(s.rois), trace_count(s)) for s in sessions)
    views = img.FOV() & subjects & {"fov_name": sessions[0].label}
    found = [
        (
            key["subject_id"],
            key["session"],
            len(img.ROI() & key),
            len(img.ROIdeltaF() & key) + len(img.ROISpikes() & key),
        )
        for key in views.keys(order_by=["subject_id", "session"])
    ]
    if found != expected:
        raise SampleError(
            f"animal {present[0]} is in the database with other content than {sessions[0].label!r} gives it: "
            "choose another seed, or delete that animal first"
        )
    return True
