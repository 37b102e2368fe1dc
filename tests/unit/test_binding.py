"""A schema is bound wholly or not at all."""

from __future__ import annotations

import pytest

from workflow.pipeline.binding import bind


class Schema:
    """Like DataJoint's, it calls itself active before it is; the first try fails."""

    def __init__(self) -> None:
        self.database: str | None = None
        self.tries = 0

    def is_activated(self) -> bool:
        return self.database is not None

    def activate(self, name: str) -> None:
        self.tries += 1
        self.database = name
        if self.tries == 1:
            raise ConnectionResetError


def test_what_was_cut_off_is_begun_again_and_what_is_whole_is_left_alone() -> None:
    schema = Schema()
    with pytest.raises(ConnectionResetError):
        bind(schema, "name")
    assert not schema.is_activated()
    for _ in range(2):
        bind(schema, "name")
    assert (schema.database, schema.tries) == ("name", 2)
