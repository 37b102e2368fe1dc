"""A clinic: keys of a uuid, a date, an enum and text, and every form of make that DataJoint knows."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Generator
from typing import Any

import datajoint as dj
import numpy as np

dj.config["jobs.allow_new_pk_fields_in_computed_tables"] = True

schema = dj.Schema()

#: On PostgreSQL, DataJoint can neither insert a uuid nor declare a jobs table whose key has an enum.
SUBJECT, ARM = (
    ("uuid", "enum('left', 'right')")
    if dj.config["database.backend"] == "mysql"
    else ("char(36)", "varchar(8)")
)

#: Text that a careless query would choke on.
PROTOCOLS = ("plain", "50% o'clock", 'say "ü"; -- {}')
N_CHANNELS = 3
N_EVENTS = 4


@schema
class Subject(dj.Manual):
    definition = f"""
    subject : {SUBJECT}
    """


@schema
class Visit(dj.Manual):
    definition = f"""
    -> Subject
    visit_date : date
    arm : {ARM}
    ---
    level : float64
    """


@schema
class Protocol(dj.Lookup):
    definition = """
    protocol : varchar(24)
    """
    contents = tuple((name,) for name in PROTOCOLS)


@schema
class Scan(dj.Imported):
    """Imported, a simple make, with parts."""

    definition = """
    -> Visit
    ---
    samples : <blob>
    """

    class Channel(dj.Part):
        definition = """
        -> master
        channel : int16
        ---
        gain : float64
        """

    def make(self, key: dict[str, Any]) -> None:
        level = (Visit & key).fetch1("level")
        self.insert1({**key, "samples": np.full((N_CHANNELS, 10), level)})
        self.Channel.insert({**key, "channel": i, "gain": level * i} for i in range(N_CHANNELS))


@schema
class Spectrum(dj.Computed):
    """A tripartite make."""

    definition = """
    -> Scan
    ---
    power : float64
    """

    class Band(dj.Part):
        definition = """
        -> master
        band : enum('low', 'high')
        ---
        power : float64
        """

    def make_fetch(self, key: dict[str, Any]) -> tuple[Any, ...]:
        return ((Scan & key).fetch1("samples"),)

    def make_compute(self, key: dict[str, Any], samples: np.ndarray) -> tuple[Any, ...]:
        assert not self.connection.in_transaction
        power = float((samples**2).sum())
        return power, {"low": power / 4, "high": power * 3 / 4}

    def make_insert(self, key: dict[str, Any], power: float, bands: dict[str, float]) -> None:
        self.insert1({**key, "power": power})
        self.Band.insert({**key, "band": band, "power": value} for band, value in bands.items())


@schema
class Fit(dj.Computed):
    """A generator, two parents, awkward text in the key."""

    definition = """
    -> Spectrum
    -> Protocol
    ---
    slope : float64
    """

    def make(self, key: dict[str, Any]) -> Generator[Any, Any, None]:
        read = (Spectrum & key).fetch1("power"), key["protocol"]
        result = yield read
        if result is None:
            assert not self.connection.in_transaction
            result = read[0] * len(read[1])
            yield result
        self.insert1({**key, "slope": result})
        yield


@schema
class Event(dj.Computed):
    """A key with an attribute of its own: one make, several rows."""

    definition = """
    -> Scan
    event : int16
    ---
    height : float64
    """

    def make(self, key: dict[str, Any]) -> None:
        level = (Visit & key).fetch1("level")
        if level < 0:
            raise ValueError("a level below 0")
        self.insert({**key, "event": i, "height": level + i} for i in range(N_EVENTS))


@schema
class Change(dj.Computed):
    """The same parent twice, once renamed, and a key_source of its own."""

    definition = """
    -> Scan
    -> Scan.proj(earlier='visit_date')
    ---
    change : float64
    """

    @property
    def key_source(self) -> Any:
        earlier = Scan.proj(earlier="visit_date")
        return Scan.proj() * earlier & "earlier < visit_date"

    def make(self, key: dict[str, Any]) -> None:
        now = (Visit & key).fetch1("level")
        before = (Visit & {**key, "visit_date": key["earlier"]}).fetch1("level")
        self.insert1({**key, "change": now - before})


def enter(n_subjects: int, n_visits: int) -> None:
    """Enter subjects with visits on both arms: n_subjects × n_visits × 2 in all."""
    for s in range(n_subjects):
        name = uuid.UUID(int=0xFFFF << 112 | s)
        subject = {"subject": name if SUBJECT == "uuid" else str(name)}
        Subject.insert1(subject)
        Visit.insert(
            {
                **subject,
                "visit_date": datetime.date(2024, 2, 28) + datetime.timedelta(days=v),
                "arm": arm,
                "level": s + 0.5 * v + 0.25 * (arm == "left"),
            }
            for v in range(n_visits)
            for arm in ("left", "right")
        )
