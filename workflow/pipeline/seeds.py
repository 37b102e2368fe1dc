"""Random numbers that can be drawn again: every key has a seed of its own, and stores it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def seed_for(key: Mapping[str, Any], seed: int) -> int:
    """Derive the seed of one key from that of its parameters.

    It is the first 32 bits, as an unsigned big-endian number, of the SHA-256 of this text: the parameters'
    seed, a space, and the primary key as JSON with sorted names, all values as text and no blanks, such as
    ``0 {"brain_area":"MOs","session":"1"}``. So different epochs and areas draw different numbers, and a key
    draws the same ones on every machine and every server.

    Parameters
    ----------
    key : mapping
        The primary key.
    seed : int
        The seed in the row of parameters.

    Returns
    -------
    int
        From 0 to 2³² − 1; belongs into the key's row.
    """
    text = json.dumps(
        {name: str(value) for name, value in key.items()}, sort_keys=True, separators=(",", ":")
    )
    return int.from_bytes(hashlib.sha256(f"{seed} {text}".encode()).digest()[:4], "big")
