"""Cutting an epoch into consecutive blocks of equal length."""

from __future__ import annotations

from enum import StrEnum

BLOCK_FRAMES = 2500


class Scheme(StrEnum):
    """How an epoch is cut."""

    QUARTERS = "quarters"
    BLOCKS = "blocks"


def partitions(
    n_frames: int, scheme: str, *, spontaneous: bool, block_frames: int = BLOCK_FRAMES
) -> tuple[slice, ...]:
    """Cut an epoch into consecutive blocks.

    Frames that do not fill a block are left out; a block is never shortened.

    Parameters
    ----------
    n_frames : int
        Length of the epoch, in frames (time bins, if the activity is binned).
    scheme : {'quarters', 'blocks'}
        Quarters of the epoch, or the first two blocks of ``block_frames`` each.
    spontaneous : bool
        For epochs of spontaneous activity only, which are half as long: halves, or the first block.
    block_frames : int
        Length of a block where they are fixed.

    Returns
    -------
    tuple of slice
        In order of time, all of one length. Fewer than the scheme asks for, or none, where the epoch is too
        short.

    Raises
    ------
    ValueError
        If there is no such scheme, ``n_frames`` is negative, or ``block_frames`` is below 1.
    """
    if n_frames < 0:
        raise ValueError(f"n_frames must be 0 or more, not {n_frames}")
    if block_frames < 1:
        raise ValueError(f"block_frames must be 1 or more, not {block_frames}")
    if scheme not in set(Scheme):
        raise ValueError(f"there is no scheme {scheme!r}: it must be one of {', '.join(Scheme)}")
    if scheme == Scheme.QUARTERS:
        wanted = 2 if spontaneous else 4
        length = n_frames // wanted
    else:
        wanted = 1 if spontaneous else 2
        length = block_frames
    fitting = min(wanted, n_frames // length) if length else 0
    return tuple(slice(i * length, (i + 1) * length) for i in range(fitting))
