"""Arrays of floats are stored as they are, and everything else as DataJoint stores it."""

import numpy as np
import pytest
from datajoint.builtin_codecs import BlobCodec
from datajoint.codecs import get_codec

from workflow.pipeline.float_blobs import store_floats_uncompressed


@pytest.fixture(autouse=True)
def _only_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BlobCodec, "encode", BlobCodec.encode)
    store_floats_uncompressed()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floats_keep_their_size_and_value(dtype: type) -> None:
    codec, trace = get_codec("blob"), np.zeros(5000, dtype)
    stored = codec.encode(trace)
    assert stored.startswith(b"mYm\0")
    assert trace.nbytes < len(stored) < trace.nbytes + 100
    assert codec.decode(stored).dtype == dtype
    assert np.array_equal(codec.decode(stored), trace)


@pytest.mark.parametrize("value", [np.zeros(5000, int), {"a": [0] * 5000}, "a" * 5000])
def test_everything_else_is_compressed(value: object) -> None:
    stored = get_codec("blob").encode(value)
    assert len(stored) < 1000
    assert np.array_equal(get_codec("blob").decode(stored), value)
