"""Computations in a schema of their own."""

from __future__ import annotations

from typing import Any

import datajoint as dj

from foreign import clinic

schema = dj.Schema()


@schema
class Total(dj.Computed):
    """Coarser than its parents, and older than version 2: a key_source that aggregates, and _make_tuples.

    Its reason of skipping may be NULL.
    """

    definition = """
    -> clinic.Subject
    ---
    n_events : int32
    skip_reason=null : varchar(255)
    """

    @property
    def key_source(self) -> Any:
        return clinic.Subject & clinic.Event

    def _make_tuples(self, key: dict[str, Any]) -> None:
        self.insert1({**key, "n_events": len(clinic.Event & key)})
