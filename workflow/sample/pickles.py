"""An unpickler that builds plain data and nothing else.

A pickle is a program: loading one calls whatever it names. This unpickler knows a short list of names,
and maps each to a stand-in of ours, so that not even NumPy's own classes are handed to the file: their
``__setstate__`` trusts its input, and a forged dtype could turn bytes into pointers.
"""

from __future__ import annotations

import collections
import datetime
import pickle
from collections.abc import Callable
from functools import partial
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from workflow.sample.errors import SampleError

_PLAIN_KINDS = "biufcSU"
_MAX_DEPTH = 50


def load_guarded(file: IO[bytes]) -> Any:
    """Unpickle plain data: containers, numbers, text, dates and NumPy arrays of those.

    Parameters
    ----------
    file : binary file
        Positioned at the start of the pickle.

    Returns
    -------
    object

    Raises
    ------
    SampleError
        If the pickle names anything else; nothing of it has then been run.
    Exception
        Any kind, if the bytes are no pickle.
    """
    return _resolve(_Unpickler(file).load(), {}, 0)


class _Dtype:
    """Stands for ``numpy.dtype``."""

    def __init__(self, spec: object, *_: object) -> None:
        if not isinstance(spec, str):
            raise SampleError("it holds an array of an unusual type: it does not come from suite2p")
        self._spec = spec
        self._byteorder: Literal["<", ">", "|", "="] = "|"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] not in ("<", ">", "|", "="):
            raise ValueError("forged byte order")
        self._byteorder = state[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        dtype = np.dtype(self._spec)
        if dtype.kind not in _PLAIN_KINDS + "O" or dtype.subdtype or dtype.names:
            raise SampleError(f"it holds an array of {dtype}: it does not come from suite2p")
        return dtype if self._byteorder == "|" else dtype.newbyteorder(self._byteorder)


class _Array:
    """Stands for ``numpy.ndarray``; its contents arrive after it is made."""

    _state: tuple[Any, ...] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._state = state

    def build(self, done: dict[int, Any], depth: int) -> NDArray[Any]:
        if self._state is None:
            raise ValueError("an array without contents")
        _, shape, stand_in, fortran, content = self._state
        dtype = stand_in.dtype
        order: Literal["C", "F"] = "F" if fortran else "C"
        if dtype.kind != "O":
            return np.asarray(np.frombuffer(content, dtype).reshape(tuple(shape), order=order))
        if not isinstance(content, list):
            raise ValueError("forged array of objects")
        result = np.empty(len(content), object)
        for index, item in enumerate(content):
            result[index] = _resolve(item, done, depth + 1)
        return np.asarray(result.reshape(tuple(shape), order=order))


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _scalar(stand_in: _Dtype, content: bytes = b"") -> Any:
    dtype = stand_in.dtype
    if dtype.kind == "O":
        raise ValueError("forged scalar")
    return np.frombuffer(content, dtype, count=1)[0] if dtype.itemsize else dtype.type()


def _from_buffer(content: Any, stand_in: _Dtype, shape: Any, order: str) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, stand_in, order == "F", bytes(content)))
    return array


def _path(*parts: object) -> str:
    return "/".join(str(part) for part in parts)


_NUMPY: dict[str, Callable[..., Any]] = {
    "multiarray._reconstruct": _reconstruct,
    "multiarray.scalar": _scalar,
    "numeric._frombuffer": _from_buffer,
}
_KNOWN: dict[str, Callable[..., Any]] = {
    "numpy.dtype": _Dtype,
    "numpy.ndarray": _reconstruct,
    **{f"numpy.{core}.{name}": call for core in ("core", "_core") for name, call in _NUMPY.items()},
    "builtins.complex": complex,
    "builtins.frozenset": frozenset,
    "builtins.set": set,
    "collections.OrderedDict": collections.OrderedDict,
    "datetime.date": datetime.date,
    "datetime.datetime": datetime.datetime,
    "datetime.timedelta": datetime.timedelta,
    **{
        f"{module}.{kind}Path": _path
        for module in ("pathlib", "pathlib._local")
        for kind in ("Posix", "Windows", "PurePosix", "PureWindows")
    },
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        call = _KNOWN.get(f"{module}.{name}")
        if call is None:
            raise SampleError(
                f"its pickle asks for '{module}.{name}', which plain data never needs: "
                "nothing of it was run, do not trust this file"
            )
        # A wrapper of its own, since a pickle may also set attributes of what it is given.
        return partial(call)


def _resolve(value: Any, done: dict[int, Any], depth: int) -> Any:
    """Replace the stand-ins inside a value by what they stand for.

    ``done`` holds what was resolved before, by identity: what occurs twice is resolved once, else a small
    file could unfold to any size.
    """
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deeply")
    if id(value) not in done:
        if isinstance(value, _Array):
            done[id(value)] = value.build(done, depth)
        elif isinstance(value, dict):
            done[id(value)] = {key: _resolve(item, done, depth + 1) for key, item in value.items()}
        elif isinstance(value, list | tuple):
            done[id(value)] = type(value)(_resolve(item, done, depth + 1) for item in value)
        else:
            return value
    return done[id(value)]
