"""Rows: one cell that is read by itself is what the whole row has in its place."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cdc.relation import Column, Shape
from cdc.row import Row
from cdc.tuples import UNCHANGED, cell_at, split
from tests.unit import wire

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
CELLS = st.lists(st.one_of(st.none(), st.just(wire.UNSENT), TEXTS, st.binary(max_size=12)), min_size=1, max_size=6)


@given(CELLS, st.binary(max_size=7))
def test_a_cell_by_itself_is_the_cell_of_the_row(cells: list[Any], before: bytes) -> None:
    data = before + wire.row(*cells)
    whole, _ = split(data, len(before))
    for index, cell in enumerate(whole):
        found = cell_at(data, len(before), index)
        assert found == cell if type(cell) is bytes else found is None
    assert cell_at(data, len(before), len(cells)) is None


@given(CELLS, st.integers(0, 60), st.integers(0, 255))
def test_a_damaged_tuple_gives_a_cell_or_none(cells: list[Any], at: int, byte: int) -> None:
    """Whoever gets none asks `split`, which says what is wrong."""
    data = bytearray(wire.row(*cells))
    data[at % len(data)] = byte
    for index in range(len(cells)):
        found = cell_at(bytes(data), 0, index)
        assert found is None or found in bytes(data)


def columns(*hidden: int) -> Shape:
    made = tuple(Column(f"c{number}", 25, -1, False, bytes.decode) for number in range(3))
    return Shape.of(made, lambda column: made.index(column) not in hidden)


def test_a_cell_is_what_the_row_shows_in_its_place() -> None:
    """Also where an older row or the relation says what stands there."""
    older = Row(columns(), wire.row("a", "b", "c"), 0)
    row = Row(columns(), wire.row("x", wire.UNSENT, None), 0, older)
    assert [row.cell(index) for index in range(3)] == list(row.cells) == [b"x", b"b", None]
    key = Row(columns(1), wire.row("x", "y", "z"), 0)
    assert [key.cell(index) for index in range(3)] == [b"x", UNCHANGED, b"z"]
    plain = Row(columns(), wire.row("x", wire.UNSENT, None), 0)
    assert [plain.cell(index) for index in range(3)] == [b"x", UNCHANGED, None]
