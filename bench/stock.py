"""DataJoint's own populate with N processes: ``python -m bench.stock TABLE PROCESSES``.

The processes are forked when everything has been imported and bound, connect again, and begin together; the
queue must have been filled. Nothing but populate itself is measured that way.
"""

from __future__ import annotations

import os
import sys

import datajoint as dj

from workflow import commands
from workflow.settings import load


def main(table: str, processes: str) -> None:
    """Populate, and print when everybody is ready."""
    tables = commands._open(load())
    computed = tables[f"trivial.{table}"]
    _ = computed.jobs.heading.attributes, computed.heading.attributes
    connection = dj.conn()
    connection.close()
    gate, opener = os.pipe()
    ready, tell = os.pipe()
    children = []
    for _number in range(int(processes)):
        child = os.fork()
        if child == 0:
            os.close(opener)
            connection.connect()
            os.write(tell, b".")
            os.read(gate, 1)
            computed.populate(reserve_jobs=True, refresh=False)
            os._exit(0)
        children.append(child)
    waited = 0
    while waited < len(children):
        waited += len(os.read(ready, len(children)))
    print("ready", flush=True)
    sys.stdin.readline()
    os.close(opener)
    statuses = [os.waitpid(child, 0)[1] for child in children]
    sys.exit(any(statuses))


if __name__ == "__main__":
    main(*sys.argv[1:])
