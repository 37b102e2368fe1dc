"""Workers are forks of one process, and yet not copies of each other."""

from __future__ import annotations

import json
import os
import random
import socket
import tempfile
from typing import Any

import numpy as np
import scipy.stats

from workflow.populate.nursery import Nursery


def draw(channel: socket.socket, file: int, given: Any) -> None:
    """Draw as a computation would that asks for no seed."""
    numbers = [random.random(), np.random.random(), scipy.stats.norm.rvs(random_state=None)]
    os.write(file, json.dumps(numbers).encode())
    channel.close()


def test_workers_draw_different_numbers() -> None:
    """So do those that replace others: the process that they are forks of never draws."""
    np.random.seed(1)
    random.seed(1)
    nursery = Nursery(draw)
    drawn = []
    for number in range(3):
        with tempfile.TemporaryFile() as file:
            nursery.spawn(number, file.fileno(), None).close()
            nursery.report()  # born
            nursery.report()  # died
            file.seek(0)
            drawn.append(json.loads(file.read()))
    nursery.close()
    assert all(len(set(numbers)) == 3 for numbers in zip(*drawn, strict=True)), drawn
