"""Read the .npy files of strangers."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from workflow.sample.errors import SampleError
from workflow.sample.pickles import load_guarded


def read_array(path: Path) -> NDArray[Any]:
    """Map a file of plain numbers into memory; nothing in it is ever unpickled.

    Parameters
    ----------
    path : Path
        A .npy file.

    Returns
    -------
    ndarray
        Read-only, of any shape and of a real numeric type.

    Raises
    ------
    SampleError
        If the file is missing, unreadable, truncated, too long, empty, pickled or not numeric.
    """
    dtype, shape, offset = _header(path)
    if dtype.hasobject:
        raise SampleError(f"{path}: it holds pickled objects where an array of numbers is expected: {_AGAIN}")
    if dtype.kind not in "fiu":
        raise SampleError(f"{path}: it holds {dtype} where numbers are expected: {_AGAIN}")
    if any(length < 1 for length in shape):
        raise SampleError(f"{path}: it is empty (shape {shape}): {_AGAIN}")
    expected = offset + int(np.prod(shape, dtype=object)) * dtype.itemsize
    size = path.stat().st_size
    if size != expected:
        wrong = "truncated" if size < expected else "too long"
        raise SampleError(f"{path}: it is {wrong} ({size} bytes instead of {expected}): {_COPY}")
    return npy_format.open_memmap(path, mode="r")


def read_pickled(path: Path) -> NDArray[Any]:
    """Read a file of pickled dictionaries through an unpickler that can run nothing.

    Parameters
    ----------
    path : Path
        A .npy file with an array of objects.

    Returns
    -------
    ndarray of object

    Raises
    ------
    SampleError
        If the file is missing, unreadable, truncated, not pickled, or names anything but plain data.
    """
    dtype, _, offset = _header(path)
    if not dtype.hasobject:
        raise SampleError(f"{path}: it holds {dtype} where pickled dictionaries are expected: {_AGAIN}")
    with path.open("rb") as file:
        file.seek(offset)
        try:
            loaded = load_guarded(file)
        except SampleError as error:
            raise SampleError(f"{path}: {error}") from None
        # Bytes that are not a pickle can raise anything; all of it means the same to the user.
        except Exception as error:
            raise SampleError(f"{path}: it is truncated or damaged ({_one_line(error)}): {_COPY}") from None
    if not isinstance(loaded, np.ndarray) or loaded.dtype != object:
        raise SampleError(f"{path}: it does not hold an array of objects: {_AGAIN}")
    return loaded


_AGAIN = "run suite2p again, or give the folder of another recording"
_COPY = "copy it again"


def _header(path: Path) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    try:
        with path.open("rb") as file:
            return _parse_header(path, file)
    except (FileNotFoundError, IsADirectoryError):
        raise SampleError(
            f"{path}: there is no such file: give a folder that suite2p has finished with"
        ) from None
    except OSError as error:
        raise SampleError(f"{path}: it cannot be read: {error.strerror}: check its permissions") from None


def _parse_header(path: Path, file: IO[bytes]) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    try:
        version = npy_format.read_magic(file)
        read = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
        shape, _, dtype = read(file)
    # A damaged header is parsed as Python text, which can fail in any way.
    except Exception as error:
        raise SampleError(f"{path}: it is no .npy file, or truncated ({_one_line(error)}): {_COPY}") from None
    return dtype, shape, file.tell()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
