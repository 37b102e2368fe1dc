"""An API on loopback that refuses everything, and keeps what it was asked with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from http.server import BaseHTTPRequestHandler

from loopback import Quiet, served


@contextmanager
def listening_api() -> Iterator[tuple[str, list[Message]]]:
    """Listen; yield the URL, and the headers of every request."""
    asked: list[Message] = []

    class Api(Quiet, BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.headers)
            self.send_error(401)

    with served(Api) as url:
        yield url, asked
