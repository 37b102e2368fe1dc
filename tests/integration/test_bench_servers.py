"""The benchmark that loads an epoch of its own and computes it in a worker still does."""

from __future__ import annotations

import pytest

from bench import memory


@pytest.mark.parametrize("label", memory.TABLES[-1:])
def test_the_memory_of_one_key_is_measured(label: str) -> None:
    row = memory.measure(label, (120, 600))
    assert row.unit == "GiB"
    assert row.limit_seconds is not None
    assert 0 < row.ours < row.limit_seconds
