"""The lab is made once for all tests of a process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pressed import Lab, open_lab


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with open_lab(tmp_path_factory.mktemp("lab")) as made:
        yield made
