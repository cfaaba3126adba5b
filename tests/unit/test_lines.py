"""Rows as COPY writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc import UNCHANGED
from cdc.storing.line import cells_of, line_of


@given(st.lists(st.none() | st.binary(max_size=20), min_size=1))
def test_a_line_is_read_as_it_was_written(cells: list[bytes | None]) -> None:
    line = line_of(cells)
    assert b"\n" not in line
    assert list(cells_of(line)) == cells


def test_it_is_what_copy_writes() -> None:
    assert line_of([b"a\tb", None, b"\\N", b"", b"x\ny"]) == b"a\\tb\t\\N\t\\\\N\t\tx\\ny"


def test_what_was_not_sent_is_not_written() -> None:
    with pytest.raises(TypeError):
        line_of([UNCHANGED])
