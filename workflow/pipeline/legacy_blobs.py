"""Read the array columns that older DataJoint clients wrote.

DataJoint for MATLAB and for Python before 2.0 stored arrays in plain ``longblob`` columns. DataJoint 2
decodes only columns whose comment names a codec and gives the bytes of all others as they are; worse,
``to_arrays`` puts such bytes into a NumPy string array, which drops trailing zeros. The bytes are of the
same format as those of the ``<blob>`` codec, so it is enough to tell DataJoint that these columns have one.
The tables are not altered, since other clients depend on them.
"""

from collections.abc import Iterable
from functools import wraps
from typing import Any

from datajoint import DataJointError
from datajoint.builtin_codecs import BlobCodec
from datajoint.codecs import get_codec
from datajoint.heading import Heading

FORMATS = (b"mYm\0", b"dj0\0", b"ZL123\0")  # how serialised values begin; the last one is compressed

_schemas: set[str] = set()


def attach_blob_codec(schema_names: Iterable[str]) -> None:
    """Treat the unmarked blob columns of some schemas as serialised values.

    Fetches, joins, projections and inserts of these columns then deal in arrays. Other schemas, and columns
    that name a type of their own, stay as they are. Call this before the tables are first used: a heading
    that has been read already is not read again. Calling it again, with the same names or more, is harmless.

    Parameters
    ----------
    schema_names : iterable of str
        Names of the schemas on the server. Fetching a blob of theirs that holds anything but a serialised
        value raises a DataJointError.

    Raises
    ------
    TypeError
        If `schema_names` is one string: its letters would be taken for names.
    """
    if isinstance(schema_names, str):
        raise TypeError(f"attach_blob_codec: give a list of schema names, not the string {schema_names!r}")
    _schemas.update(schema_names)
    if not hasattr(Heading._init_from_database, "__wrapped__"):
        Heading._init_from_database = _with_codec(Heading._init_from_database)


class LegacyBlob(BlobCodec):
    """The ``<blob>`` codec, but strict: bytes of another format are an error instead of a silent None."""

    name = "legacy_blob"

    def decode(self, stored: bytes, *, key: dict[str, Any] | None = None) -> Any:
        """Turn serialised bytes into the value that was inserted."""
        beginning = bytes(stored[:6])
        if not beginning.startswith(FORMATS):
            raise DataJointError(f"a blob that begins with {beginning!r} holds no serialised value")
        return super().decode(stored, key=key)


def _with_codec(read_heading: Any) -> Any:
    """Extend the method that reads a table's heading from the server."""

    @wraps(read_heading)
    def read_and_attach(heading: Any) -> None:
        read_heading(heading)
        if heading.table_info["database"] not in _schemas:
            return
        codec = get_codec(LegacyBlob.name)
        heading._attributes = {
            name: attribute._replace(codec=codec, type=f"<{codec.name}>")
            if _is_unmarked_blob(attribute)
            else attribute
            for name, attribute in heading._attributes.items()
        }

    return read_and_attach


def _is_unmarked_blob(attribute: Any) -> bool:
    """Say whether a column holds bytes and its comment names neither a codec nor a type."""
    return bool(attribute.is_blob) and attribute.codec is None and attribute.original_type is None
