"""The decoder from bytes: each message, and what is no message."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc import UNCHANGED, DecodeError, UnsupportedMessage
from cdc.pgoutput import (
    Begin,
    Commit,
    LogicalMessage,
    Origin,
    RelationColumn,
    RelationMessage,
    RowMessage,
    StreamAbort,
    TruncateMessage,
    TypeMessage,
    decode,
)
from cdc.tuples import split
from tests.unit import wire

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
    wire.insert(1, 1, None, "x"),
    wire.update(1, (1, "x")),
    wire.update(1, (1, wire.UNSENT), (2, None)),
    wire.update(1, (1, "x"), (2, "y"), "O"),
    wire.delete(1, (1, None)),
    wire.delete(1, (1, "x"), "O"),
]


@pytest.mark.parametrize("data", MESSAGES)
def test_messages(data: bytes) -> None:
    assert decode(data) == MESSAGES[data]


def test_an_insert_keeps_its_tuple_as_an_offset() -> None:
    message = decode(wire.insert(1, 1, None, "x"))
    assert isinstance(message, RowMessage)
    assert (message.kind, message.relation_oid, message.old_kind) == ("I", 1, None)
    assert split(message.data, message.new) == ([b"1", None, b"x"], len(message.data))


@pytest.mark.parametrize(("kind", "old"), [("K", [b"2", None]), ("O", [b"2", None])])
def test_an_update_has_both_tuples(kind: str, old: list) -> None:
    message = decode(wire.update(1, (1, wire.UNSENT), (2, None), kind))
    assert isinstance(message, RowMessage)
    assert message.old_kind == kind
    assert split(message.data, message.old)[0] == old
    assert split(message.data, message.new)[0] == [b"1", UNCHANGED]


def test_a_delete_has_the_old_tuple_only() -> None:
    message = decode(wire.delete(1, (1, None)))
    assert isinstance(message, RowMessage)
    assert (message.old_kind, message.new, split(message.data, message.old)[0]) == ("K", 0, [b"1", None])


@pytest.mark.parametrize("data", [*MESSAGES, *ROWS])
def test_every_prefix_is_an_error_of_ours(data: bytes) -> None:
    for length in range(len(data)):
        with pytest.raises(DecodeError) as caught:
            read(data[:length])
        assert 0 <= caught.value.offset <= length


@pytest.mark.parametrize("data", MESSAGES)
def test_bytes_behind_the_end_are_an_error(data: bytes) -> None:
    if data[:1] != b"A":
        with pytest.raises(DecodeError, match="behind the end"):
            decode(data + b"x")


@given(st.sampled_from([*MESSAGES, *ROWS]), st.data())
def test_any_corruption_gives_a_message_or_an_error_of_ours(data: bytes, draw: st.DataObject) -> None:
    place = draw.draw(st.integers(0, len(data) - 1))
    corrupt = data[:place] + bytes([draw.draw(st.integers(0, 255))]) + data[place + 1 :]
    try:
        read(corrupt)
    except DecodeError as error:
        assert str(error)


@given(st.binary(max_size=60))
def test_any_bytes_give_a_message_or_an_error_of_ours(data: bytes) -> None:
    try:
        read(data)
    except DecodeError as error:
        assert str(error)


def test_unknown_types_and_binary_cells_are_said_to_be_unsupported() -> None:
    with pytest.raises(UnsupportedMessage, match="protocol 1.*message type 'S'"):
        decode(b"S" + bytes(5))
    with pytest.raises(UnsupportedMessage, match="binary cell"):
        split(b"I\0\0\0\1N\0\1b\0\0\0\1x", 6)


def test_a_negative_length_is_an_error() -> None:
    with pytest.raises(DecodeError, match="negative length"):
        split(b"I\0\1t\xff\xff\xff\xfex", 1)


def read(data: bytes) -> None:
    """Decode a message and split its tuples, as a subscriber would."""
    message = decode(data)
    if isinstance(message, RowMessage):
        for offset in (message.old, message.new):
            if offset:
                split(message.data, offset)
