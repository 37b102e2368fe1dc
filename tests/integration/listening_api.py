"""An API on loopback that refuses everything, and keeps what it was asked with."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def listening_api() -> Iterator[tuple[str, list[Message]]]:
    """Listen; yield the URL, and the headers of every request."""
    asked: list[Message] = []

    class Api(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.headers)
            self.send_error(401)

        def log_message(self, *_: object) -> None:
            """Say nothing: the requests are the test's own."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()
