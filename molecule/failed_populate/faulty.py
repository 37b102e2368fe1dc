"""A pipeline of one table, one of whose keys fails."""

from __future__ import annotations

from typing import Any, ClassVar

import datajoint as dj

schema = dj.Schema()


@schema
class Sample(dj.Lookup):
    """Three samples, of which the second is damaged."""

    definition = """
    sample : int32
    """
    contents: ClassVar[list[tuple[int]]] = [(1,), (2,), (3,)]


@schema
class Double(dj.Computed):
    """Twice the sample's number."""

    definition = """
    -> Sample
    ---
    double_number : int32
    """

    def make(self, key: dict[str, Any]) -> None:
        """Fail on the damaged one."""
        if key["sample"] == 2:
            raise ValueError("this sample is damaged")
        self.insert1({**key, "double_number": 2 * key["sample"]})
