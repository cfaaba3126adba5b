"""The decoder from bytes: each message, and what is no message."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc import UNCHANGED, DecodeError, UnsupportedMessage
from cdc.pgoutput import (
    Begin,
    Commit,
    Decoder,
    DeleteMessage,
    InsertMessage,
    LogicalMessage,
    Message,
    Origin,
    RelationColumn,
    RelationMessage,
    StreamAbort,
    TruncateMessage,
    TypeMessage,
    UpdateMessage,
)
from cdc.tuples import Binary, split
from tests.unit import wire

RELATION = wire.relation(1, [("id", 23, True), ("name", 25, False)])
MESSAGES = {
    wire.begin(0x16B3748, 7, 5): Begin(0x16B3748, 5, 7),
    wire.commit(10, 20): Commit(10, 20, 0),
    wire.origin(9, "elsewhere"): Origin(9, "elsewhere"),
    wire.relation(1, [("id", 23, True), ("é", 25, False)]): RelationMessage(
        1, "public", "wells", "d", (RelationColumn("id", 23, -1, True), RelationColumn("é", 25, -1, False))
    ),
    wire.type_message(9, "mood"): TypeMessage(9, "public", "mood"),
    wire.truncate([1, 2], 3): TruncateMessage((1, 2), True, True),
    wire.truncate([1]): TruncateMessage((1,), False, False),
    wire.logical("p", b"\0x", True, 5): LogicalMessage(True, 5, "p", b"\0x"),
    b"A" + bytes(8): StreamAbort(0, 0),
}
ROWS = [
    wire.insert(1, 1, None),
    wire.update(1, (1, "x")),
    wire.update(1, (1, wire.UNSENT), (2, None)),
    wire.update(1, (1, "x"), (2, "y"), "O"),
    wire.delete(1, (1, None)),
    wire.delete(1, (1, "x"), "O"),
]


def decode(data: bytes) -> Message:
    """A message behind the Relation message of its table."""
    decoder = Decoder()
    decoder.decode(RELATION)
    return decoder.decode(data)


@pytest.mark.parametrize("data", MESSAGES)
def test_messages(data: bytes) -> None:
    assert decode(data) == MESSAGES[data]


def test_an_insert_has_a_row() -> None:
    message = decode(wire.insert(1, 1, None))
    assert isinstance(message, InsertMessage)
    assert str(message.relation) == "public.wells" and dict(message.new) == {"id": 1, "name": None}


def test_an_update_has_both_rows() -> None:
    message = decode(wire.update(1, (1, wire.UNSENT), (2, None), "K"))
    assert isinstance(message, UpdateMessage) and message.old is not None
    assert (message.old_kind, dict(message.old), dict(message.new)) == ("K", {"id": 2}, {"id": 1, "name": UNCHANGED})
    message = decode(wire.update(1, (1, wire.UNSENT), (2, "long"), "O"))
    assert isinstance(message, UpdateMessage) and message.old is not None
    assert (message.old_kind, dict(message.old)) == ("O", {"id": 2, "name": "long"})
    assert dict(message.new) == {"id": 1, "name": "long"}
    message = decode(wire.update(1, (1, "a")))
    assert isinstance(message, UpdateMessage) and (message.old_kind, message.old) == (None, None)


def test_a_delete_has_the_old_row_only() -> None:
    message = decode(wire.delete(1, (1, None)))
    assert isinstance(message, DeleteMessage)
    assert (message.old_kind, dict(message.old)) == ("K", {"id": 1})


@pytest.mark.parametrize("data", [*MESSAGES, *ROWS])
def test_every_prefix_is_an_error_of_ours(data: bytes) -> None:
    for length in range(len(data)):
        with pytest.raises(DecodeError) as caught:
            decode(data[:length])
        assert 0 <= caught.value.offset <= length


@pytest.mark.parametrize("data", MESSAGES)
def test_bytes_behind_the_end_are_an_error(data: bytes) -> None:
    with pytest.raises(DecodeError, match="behind the end"):
        decode(data + b"x")


@given(st.sampled_from([*MESSAGES, *ROWS]), st.data())
def test_any_corruption_gives_a_message_or_an_error_of_ours(data: bytes, draw: st.DataObject) -> None:
    place = draw.draw(st.integers(0, len(data) - 1))
    corrupt = data[:place] + bytes([draw.draw(st.integers(0, 255))]) + data[place + 1 :]
    try:
        decode(corrupt)
    except DecodeError as error:
        assert str(error)


@given(st.binary(max_size=60))
def test_any_bytes_give_a_message_or_an_error_of_ours(data: bytes) -> None:
    try:
        decode(data)
    except DecodeError as error:
        assert str(error)


def test_unknown_types_are_said_to_be_unsupported() -> None:
    with pytest.raises(UnsupportedMessage, match="unknown type.*message type 'z'"):
        decode(b"z" + bytes(5))


def test_a_cell_in_binary_form_is_one() -> None:
    (cell,), end = split(b"I\0\0\0\1N\0\1b\0\0\0\1x", 6)
    assert (type(cell), cell, end) == (Binary, b"x", 14)


@pytest.mark.parametrize("kind", [b"t", b"b"])
def test_a_negative_length_is_an_error(kind: bytes) -> None:
    with pytest.raises(DecodeError, match="longer than its message"):
        split(b"I\0\1" + kind + b"\xff\xff\xff\xfex", 1)
