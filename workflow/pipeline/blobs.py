"""Fetch blobs so that one that is damaged can be named."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import datajoint as dj
from datajoint.codecs import decode_attribute


def fetch_blobs(
    query: Any, attribute: str, order_by: Sequence[str], describe: Callable[[Mapping[str, Any]], str]
) -> Iterator[dict[str, Any]]:
    """Fetch rows with a blob in each, and decode the blobs one by one.

    DataJoint's own fetch decodes everything at once, and what NumPy or zlib say of damaged bytes does not
    tell whose they are.

    Parameters
    ----------
    query : datajoint.QueryExpression
        Its other attributes are of native types.
    attribute : str
        The blob.
    order_by : sequence of str
        Attributes.
    describe : callable
        Gives the name of a row's blob, for people.

    Yields
    ------
    dict
        A row.

    Raises
    ------
    datajoint.DataJointError
        If a blob cannot be decoded.
    """
    column = query.heading[attribute]
    for row in (query & dj.Top(limit=None, order_by=list(order_by))).cursor(as_dict=True):
        try:
            value = decode_attribute(column, row[attribute], connection=query.connection)
        except Exception as error:  # of NumPy, zlib, struct or DataJoint, whatever the bytes lead to
            said = " ".join(str(error).split()) or type(error).__name__
            raise dj.DataJointError(f"{describe(row)} cannot be decoded: {said}") from error
        yield {**row, attribute: value}
