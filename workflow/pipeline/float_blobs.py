"""Store arrays of floating-point numbers as they are.

DataJoint's ``<blob>`` codec compresses whatever is longer than a kilobyte. Measured activity is noise in its
lower digits: compressing it makes it smaller by less than a tenth and takes longer than decomposing it. The
format has a form without compression, which every DataJoint client reads.
"""

from typing import Any

import numpy as np
from datajoint import blob
from datajoint.builtin_codecs import BlobCodec

_compressing = BlobCodec.encode


def store_floats_uncompressed() -> None:
    """Change the codec for this process; everything but arrays of floats is stored as before."""
    BlobCodec.encode = _encode


def _encode(codec: BlobCodec, value: Any, **context: Any) -> bytes:
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return bytes(blob.pack(value, compress=False))
    return bytes(_compressing(codec, value, **context))
