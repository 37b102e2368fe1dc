"""A short digest of whatever a computation has read."""

from __future__ import annotations

import datetime
import decimal
import hashlib
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

#: Values whose text says all there is.
_PLAIN = (
    type(None),
    bool,
    int,
    float,
    complex,
    decimal.Decimal,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    uuid.UUID,
    np.generic,
)


class _Hash(Protocol):
    def update(self, data: Any, /) -> None: ...


def digest(value: Any) -> bytes:
    """Digest a value so that two equal readings give the same bytes.

    DataJoint compares what a three-part ``make`` reads now with what it read before the computation. Its own
    comparison walks over every element of every array and takes minutes for 100 MB; this one hashes the
    arrays' memory and takes a tenth of a second.

    Parameters
    ----------
    value : object
        Arrays, data frames, numbers, texts, and lists, tuples and dictionaries of them; anything else is
        left to DataJoint's way.

    Returns
    -------
    bytes
        16 bytes.
    """
    hashed = hashlib.blake2b(digest_size=16)
    _add(hashed, value)
    return hashed.digest()


def _add(hashed: _Hash, value: Any) -> None:
    if isinstance(value, np.ndarray):
        _add_array(hashed, value)
    elif isinstance(value, Mapping):
        hashed.update(f"mapping {len(value)}".encode())
        for name, item in value.items():
            _add(hashed, name)
            _add(hashed, item)
    elif isinstance(value, str | bytes | bytearray | memoryview):
        data = value.encode() if isinstance(value, str) else value
        hashed.update(f"{type(value).__name__} {len(data)} ".encode())
        hashed.update(data)
    elif isinstance(value, Sequence):
        hashed.update(f"sequence {len(value)}".encode())
        for item in value:
            _add(hashed, item)
    elif isinstance(value, _PLAIN):
        hashed.update(f"{type(value).__name__} {value!r} ".encode())
    else:
        _add_other(hashed, value)


def _add_array(hashed: _Hash, value: Any) -> None:
    hashed.update(repr((value.shape, value.dtype.str, value.dtype.names)).encode())
    if value.dtype.hasobject:
        for item in value.ravel().tolist():
            _add(hashed, item)
    elif value.size:
        hashed.update(np.ascontiguousarray(value).view(np.uint8).data)


def _add_other(hashed: _Hash, value: Any) -> None:
    if hasattr(value, "reset_index") and hasattr(value, "columns"):  # a data frame
        _add(hashed, {str(name): column.to_numpy() for name, column in value.reset_index().items()})
    else:
        from deepdiff import DeepHash

        hashed.update(str(DeepHash(value, ignore_iterable_order=False)[value]).encode())
