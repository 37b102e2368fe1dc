"""Where in the upstream tables a suite2p recording goes, or is already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import datajoint as dj

from workflow.pipeline import exp2, img, lab
from workflow.sample.errors import SampleError
from workflow.sample.recording import BRAIN_AREAS, EPOCH_TYPES, Session
from workflow.sample.suite2p import Suite2pRecording

#: The first of the animals that suite2p folders are given to, unless the caller names one.
FIRST_SUBJECT = 900_001
_MAX_SUBJECT, _MAX_SESSION = 2**31 - 1, 2**15 - 1


@dataclass(frozen=True)
class Wanted:
    """What the caller asked for; None leaves the choice to us."""

    subject_id: int | None
    session: int | None
    epoch_type: str
    brain_area: str | None

    def validate(self) -> None:
        """Refuse what no database could hold."""
        for name, value, largest in (
            ("subject id", self.subject_id, _MAX_SUBJECT),
            ("session", self.session, _MAX_SESSION),
        ):
            if value is not None and not 1 <= value <= largest:
                raise SampleError(f"the {name} is {value}: it must be a whole number from 1 to {largest}")
        if self.epoch_type not in EPOCH_TYPES:
            raise SampleError(
                f"the epoch type is {self.epoch_type!r}: it must be one of {', '.join(EPOCH_TYPES)}"
            )

    def validate_brain_area(self) -> None:
        """Refuse an area that neither the database's dictionary nor ours knows."""
        if self.brain_area is None:
            return
        known = {*BRAIN_AREAS, *lab.BrainArea.to_arrays("brain_area").tolist()}
        if self.brain_area not in known:
            raise SampleError(
                f"the brain area is {self.brain_area!r}: it must be one of {', '.join(sorted(known))}"
            )

    def compare(self, found: Session, recording: Suite2pRecording) -> None:
        """Refuse to call a recording loaded that is stored otherwise than asked for."""
        epoch, areas = found.epochs[0], {roi.brain_area for roi in found.rois}
        differing = [
            f"{name} {asked}"
            for name, asked, stored in (
                ("animal", self.subject_id, found.subject_id),
                ("session", self.session, found.session),
                ("epoch type", self.epoch_type, epoch.epoch_type),
                ("brain area", self.brain_area, next(iter(areas)) if len(areas) == 1 else areas),
                ("frame rate", recording.frame_rate, epoch.frame_rate),
            )
            if asked is not None and asked != stored
        ]
        if differing:
            raise SampleError(
                f"{recording.folder} is in the database already, as {describe(found)} at "
                f"{epoch.frame_rate:g} Hz, not as asked ({', '.join(differing)}): "
                "ask for that one, or delete its session first"
            )


def describe(session: Session) -> str:
    """Name the one epoch of a session in plain words."""
    epoch = session.epochs[0]
    return (
        f"epoch {epoch.epoch_type} {epoch.number} of session {session.session} of animal {session.subject_id}"
    )


def find(recording: Suite2pRecording) -> Session | None:
    """Find the recording in the database by the digest of its files."""
    names = img.FOV.to_dicts()
    keys = [row for row in names if row["fov_name"].startswith(recording.fingerprint)]
    if not keys:
        return None
    key = {name: keys[0][name] for name in img.FOV().primary_key}
    epochs = (exp2.SessionEpoch() & (img.ROIdeltaF() & key)).to_dicts()
    if len(epochs) != 1:
        raise SampleError(
            f"field of view {keys[0]['fov_name']!r} ({key}) has no traces in the database: delete it first"
        )
    areas: list[Any] = (dj.U("brain_area") & (img.ROIBrainArea() & key)).to_arrays("brain_area").tolist()
    return recording.as_session(
        subject_id=key["subject_id"],
        session=key["session"],
        fov_num=key["fov_num"],
        epoch_type=epochs[0]["session_epoch_type"],
        number=epochs[0]["session_epoch_number"],
        start_time=epochs[0]["session_epoch_start_time"],
        brain_area=areas[0] if areas else None,
        frame_rate=(img.FOVEpoch() & epochs[0]).fetch1("imaging_frame_rate"),
    )


def place(recording: Suite2pRecording, wanted: Wanted) -> Session:
    """Choose what the caller left open: always the next free number."""
    subject_id = wanted.subject_id
    if subject_id is None:
        subject_id = max([FIRST_SUBJECT - 1, *lab.Subject.to_arrays("subject_id").tolist()]) + 1
    animal = {"subject_id": subject_id}
    session = wanted.session
    if session is None:
        session = _next((exp2.Session() & animal).to_arrays("session"))
    if subject_id > _MAX_SUBJECT or session > _MAX_SESSION:
        raise SampleError(
            f"animal {subject_id}, session {session} is beyond what the tables can number: name both"
        )
    key = {**animal, "session": session}
    epochs = exp2.SessionEpoch() & key
    return recording.as_session(
        subject_id=subject_id,
        session=session,
        fov_num=_next((img.FOV() & key).to_arrays("fov_num")),
        epoch_type=wanted.epoch_type,
        number=_next(epochs.to_arrays("session_epoch_number")),
        start_time=max([0.0, *epochs.to_arrays("session_epoch_end_time").tolist()]),
        brain_area=wanted.brain_area,
    )


def _next(numbers: Any) -> int:
    return max([0, *(int(number) for number in numbers)]) + 1
