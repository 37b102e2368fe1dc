"""Moto's own EC2 and IAM, in this process."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from moto.server import ThreadedMotoServer


@contextmanager
def moto_server() -> Iterator[str]:
    """Serve it; yield its URL. Servers of one process share what they have: in the end that is nothing."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        yield url
    finally:
        direct.open(f"{url}/moto-api/reset", data=b"", timeout=30).close()
        server.stop()
