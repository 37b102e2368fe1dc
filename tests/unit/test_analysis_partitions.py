"""Cutting an epoch into blocks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow.analysis.partitions import partitions


def edges(*arguments: object, **options: object) -> list[tuple[int, int]]:
    return [(block.start, block.stop) for block in partitions(*arguments, **options)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("n_frames", "scheme", "spontaneous", "expected"),
    [
        (8, "quarters", False, [(0, 2), (2, 4), (4, 6), (6, 8)]),
        (11, "quarters", False, [(0, 2), (2, 4), (4, 6), (6, 8)]),  # the remainder is left out
        (8, "quarters", True, [(0, 4), (4, 8)]),
        (9, "quarters", True, [(0, 4), (4, 8)]),
        (3, "quarters", False, []),
        (1, "quarters", True, []),
        (0, "quarters", False, []),
        (5000, "blocks", False, [(0, 2500), (2500, 5000)]),
        (20000, "blocks", False, [(0, 2500), (2500, 5000)]),
        (4999, "blocks", False, [(0, 2500)]),
        (2499, "blocks", False, []),
        (5000, "blocks", True, [(0, 2500)]),
        (2500, "blocks", True, [(0, 2500)]),
        (2499, "blocks", True, []),
        (0, "blocks", True, []),
    ],
)
def test_both_schemes(n_frames: int, scheme: str, spontaneous: bool, expected: list[tuple[int, int]]) -> None:
    assert edges(n_frames, scheme, spontaneous=spontaneous) == expected


def test_the_length_of_fixed_blocks_can_be_chosen() -> None:
    assert edges(25, "blocks", spontaneous=False, block_frames=10) == [(0, 10), (10, 20)]


@given(
    n_frames=st.integers(0, 30_000),
    scheme=st.sampled_from(["quarters", "blocks"]),
    spontaneous=st.booleans(),
    block_frames=st.integers(1, 6000),
)
def test_blocks_are_consecutive_complete_and_equal(
    n_frames: int, scheme: str, spontaneous: bool, block_frames: int
) -> None:
    found = edges(n_frames, scheme, spontaneous=spontaneous, block_frames=block_frames)
    wanted = {"quarters": 4, "blocks": 2}[scheme] // (2 if spontaneous else 1)
    length = n_frames // wanted if scheme == "quarters" else block_frames
    assert [stop - start for start, stop in found] == [length] * len(found)
    assert [start for start, _ in found] == [i * length for i in range(len(found))]
    assert all(stop <= n_frames for _, stop in found)
    if len(found) < wanted:
        assert n_frames < wanted * max(length, 1)
    if scheme == "quarters" and found:
        assert n_frames - found[-1][1] < wanted


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"n_frames": -1, "scheme": "quarters"}, "n_frames must be 0 or more"),
        ({"n_frames": 9, "scheme": "thirds"}, "no scheme 'thirds'"),
        ({"n_frames": 9, "scheme": "blocks", "block_frames": 0}, "block_frames must be 1 or more"),
    ],
)
def test_bad_input_is_refused(arguments: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named) as refused:
        partitions(**arguments, spontaneous=False)  # type: ignore[arg-type]
    assert "\n" not in str(refused.value)
