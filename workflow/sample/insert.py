"""Put recordings into the upstream tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from workflow.pipeline import exp2, img, lab, stimanal
from workflow.pipeline.computing import chunks
from workflow.sample.recording import BRAIN_AREAS, EPOCH_TYPES, Epoch, Progress, Roi, Session, Trace

Row = dict[str, Any]


def insert_sessions(sessions: Sequence[Session], progress: Progress | None = None) -> None:
    """Insert sessions with their animals, epochs, ROIs and traces.

    Animals, sessions and dictionary entries that exist are left as they are; a field of view, epoch, ROI
    or trace that exists is an error. Call it inside a transaction.

    Parameters
    ----------
    sessions : sequence of Session
        What to insert.
    progress : callable, optional
        Told how many traces are inserted.

    Raises
    ------
    datajoint.errors.DuplicateError
        If anything but an animal, a session or a dictionary entry exists.
    """
    _insert_missing(lab.BrainArea, _dictionary("brain_area", "brain_area_description", BRAIN_AREAS))
    _insert_missing(exp2.SessionEpochType, _dictionary("session_epoch_type", "description", EPOCH_TYPES))
    subjects = [{"subject_id": subject_id} for subject_id in sorted({s.subject_id for s in sessions})]
    _insert_missing(lab.Subject, subjects)
    _insert_missing(stimanal.MiceIncluded, subjects)
    _insert_missing(exp2.Session, [{**s.key, "session_date": s.date} for s in sessions])
    _insert_missing(img.Mesoscope, [dict(s.key) for s in sessions if s.mesoscope])
    counter = _Counter(sum(trace_count(s) for s in sessions), progress)
    for session in sessions:
        _insert_geometry(session)
        for epoch in session.epochs:
            _insert_epoch(session, epoch, counter)


def trace_count(session: Session) -> int:
    """Count the traces of a session, dF/F and spikes together."""
    return len(session.rois) * sum(1 + (epoch.spikes is not None) for epoch in session.epochs)


class _Counter:
    """Counts traces for the progress callback."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._done, self._total, self._progress = 0, total, progress

    def add(self, count: int) -> None:
        self._done += count
        if self._progress:
            self._progress(self._done, self._total, "traces")


def _dictionary(name: str, description: str, entries: Mapping[str, str]) -> list[Row]:
    return [{name: key, description: text} for key, text in entries.items()]


def _insert_missing(table: Any, rows: Iterable[Row]) -> None:
    names = table().primary_key
    present = {tuple(row[name] for name in names) for row in table.proj().to_dicts()}
    _insert(table, [row for row in rows if tuple(row[name] for name in names) not in present])


def _insert_geometry(session: Session) -> None:
    fov = {**session.key, "fov_num": session.fov_num}
    rate = session.nominal_frame_rate
    size = {"fov_x_size": session.x_size, "fov_y_size": session.y_size}
    _insert(img.FOV, [{**fov, "fov_name": session.label, **size, "imaging_frame_rate": rate}])
    _insert(
        img.Plane,
        [
            {
                **fov,
                "plane_num": plane.plane_num,
                "channel_num": plane.channel_num,
                "mean_img": plane.mean_img,
                "mean_img_enhanced": plane.mean_img_enhanced,
            }
            for plane in session.planes
        ],
    )
    keys = [_roi_key(session, roi) for roi in session.rois]
    _insert(img.ROI, (_roi_row(key, roi) for key, roi in zip(keys, session.rois, strict=True)))
    _insert(img.ROIBad, [key for key, roi in zip(keys, session.rois, strict=True) if roi.bad])
    areas = [(key, roi.brain_area) for key, roi in zip(keys, session.rois, strict=True)]
    _insert(img.ROIBrainArea, [{**key, "brain_area": area} for key, area in areas if area])


def _insert_epoch(session: Session, epoch: Epoch, counter: _Counter) -> None:
    key = {
        **session.key,
        "session_epoch_type": epoch.epoch_type,
        "session_epoch_number": epoch.number,
    }
    times = {"session_epoch_start_time": epoch.start_time, "session_epoch_end_time": epoch.end_time}
    _insert(exp2.SessionEpoch, [{**key, **times, "flag_photostim_epoch": float(epoch.photostim)}])
    if epoch.somatotopy is not None:
        _insert(exp2.SessionEpochSomatotopy, [{**key, "sensory_stimulation_area": epoch.somatotopy}])
    rates = {"imaging_frame_rate": epoch.frame_rate, "imaging_frame_rate_plane": epoch.frame_rate}
    _insert(img.FOVEpoch, [{**key, **rates, "imaging_frame_rate_volume": epoch.frame_rate}])
    _insert(img.ROIdeltaF, _trace_rows(key, session, epoch.dff(), "dff_trace"), counter)
    if epoch.spikes is not None:
        _insert(img.ROISpikes, _trace_rows(key, session, epoch.spikes(), "spikes_trace"), counter)


def _roi_key(session: Session, roi: Roi) -> Row:
    plane = {"plane_num": roi.plane.plane_num, "channel_num": roi.plane.channel_num}
    return {**session.key, "fov_num": session.fov_num, **plane, "roi_number": roi.roi_number}


def _roi_row(key: Row, roi: Roi) -> Row:
    return {
        **key,
        "roi_number_uid": roi.uid,
        "roi_centroid_x": roi.x,
        "roi_centroid_y": roi.y,
        "roi_radius": roi.radius,
        "roi_x_pix": roi.x_pix,
        "roi_y_pix": roi.y_pix,
        "roi_pixel_weight": roi.weight,
        "f_mean": roi.f_mean,
        "f_median": roi.f_median,
    }


def _trace_rows(key: Row, session: Session, traces: Iterator[Trace], attribute: str) -> Iterator[Row]:
    for roi, trace in zip(session.rois, traces, strict=True):
        yield {**key, **_roi_key(session, roi), attribute: trace}


def _insert(table: Any, rows: Iterable[Row], counter: _Counter | None = None) -> None:
    """Insert in statements that the server accepts."""
    table = table()
    for chunk in chunks(table, rows):
        table.insert(chunk, allow_direct_insert=True)
        if counter:
            counter.add(len(chunk))
