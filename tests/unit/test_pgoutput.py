"""The decoder from bytes: each message, and what is no message."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc import UNCHANGED, ConfigurationError, DecodeError, UnsupportedMessage
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
    RollbackPrepared,
    StreamAbort,
    TruncateMessage,
    TypeMessage,
    UpdateMessage,
)
from cdc.tuples import Binary, split
from cdc.values import TypeInfo, Types
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


# What a person with frames from elsewhere meets.


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_message_may_be_anything_like_bytes(kind: type) -> None:
    assert Decoder().decode(kind(wire.origin(9, "elsewhere"))) == Origin(9, "elsewhere")


def test_an_error_names_the_lsn_when_the_header_is_there() -> None:
    with pytest.raises(DecodeError, match=r"ends early \(message type 'B', byte offset 3, at LSN 0/ABC\)") as caught:
        Decoder().decode(wire.xlog(b"B\0\0", start=0xABC))
    assert (caught.value.offset, caught.value.kind, caught.value.lsn) == (3, "B", 0xABC)


def test_times_are_datetimes_too() -> None:
    when = datetime(2024, 5, 6, 7, 8, 9, 10, tzinfo=UTC)
    sent = (when - datetime(2000, 1, 1, tzinfo=UTC)) // (datetime.resolution)
    decoder = Decoder()
    one = decoder.decode(wire.begin(1, 7, sent))
    assert isinstance(one, Begin) and one.commit_time == when
    rolled = decoder.decode(wire.rollback_prepared(1, 2, "g", 7, sent, sent + 1))
    assert isinstance(rolled, RollbackPrepared)
    assert (rolled.prepare_time, rolled.rollback_time) == (when, when + datetime.resolution)
    short, long = decoder.decode(wire.stream_abort(1, 2)), decoder.decode(wire.stream_abort(1, 2, 3, sent))
    assert isinstance(short, StreamAbort) and isinstance(long, StreamAbort)
    assert (short.abort_time, long.abort_time, long.abort_lsn) == (None, when, 3)


@pytest.mark.parametrize("microseconds", [2**63 - 1, -(2**63), 252_000_000_000_000_000])
def test_a_time_that_no_datetime_holds_is_an_error(microseconds: int) -> None:
    with pytest.raises(DecodeError, match="years 1 to 9999"):
        Decoder().decode(wire.begin(1, 7, microseconds))


def test_feed_keeps_what_was_not_asked_for() -> None:
    decoder = Decoder()
    one, two = wire.origin(1, "a") + b"\n", wire.origin(2, "b") + b"\n"
    decoder.feed(one)
    assert decoder.pending == len(one)
    assert next(decoder.feed(two)) == Origin(1, "a")
    assert decoder.pending == len(two)
    assert list(decoder.feed(b"")) == [Origin(2, "b")] and decoder.pending == 0


def test_feed_stays_in_front_of_a_damaged_message() -> None:
    decoder = Decoder()
    found = decoder.feed(wire.origin(1, "a") + b"\n" + b"z\n")
    assert next(found) == Origin(1, "a")
    for _ in range(2):
        with pytest.raises(UnsupportedMessage, match="message type 'z', byte offset 0"):
            list(decoder.feed(b""))
    with pytest.raises(DecodeError, match="does not end with a newline.*byte offset 11"):
        list(Decoder().feed(wire.origin(1, "a") + b"!"))


def values(decoder: Decoder, *cells: object) -> list:
    message = decoder.decode(wire.insert(1, *cells))
    assert isinstance(message, InsertMessage)
    return list(message.new.values())


def test_types_are_learned_from_their_messages() -> None:
    decoder = Decoder()
    for oid, name, schema in ((70, "numeric", ""), (71, "_int4", ""), (72, "mood", "public"), (73, "nothing", "")):
        decoder.decode(wire.type_message(oid, name, schema))
    decoder.decode(wire.relation(1, [(name, 70 + at, True) for at, name in enumerate("abcde")]))
    assert values(decoder, "1.50", "{1,NULL}", "ok", "x", "y") == [Decimal("1.50"), [1, None], "ok", "x", "y"]
    decoder.decode(wire.type_message(70, "int4", ""))
    decoder.decode(wire.relation(1, [("a", 70, True)]))
    assert values(decoder, "7") == [7], "a newer message counts for more"


def test_what_the_catalog_says_counts_for_more_than_a_type_message() -> None:
    types = Types()
    types.add([TypeInfo(70, "public", "truth", "d", base=16)])
    decoder = Decoder(types)
    decoder.decode(wire.type_message(70, "text", ""))
    decoder.decode(wire.type_message(23, "text", ""))
    decoder.decode(wire.relation(1, [("a", 70, True), ("b", 23, False)]))
    assert values(decoder, "t", "5") == [True, 5]


# Relations in streamed transactions.

NARROW, WIDE = wire.relation(1, [("id", 23, True)]), RELATION


def in_a_block(decoder: Decoder, *messages: bytes) -> None:
    for message in (wire.stream_start(9), *(wire.in_block(9, each) for each in messages), wire.stream_stop()):
        decoder.decode(message)


@pytest.mark.parametrize(
    ("end", "columns"),
    [
        (wire.stream_commit(9, 1, 2), 2),
        (wire.stream_abort(9, 9), 1),
        (wire.stream_prepare(1, 2, "g", 9), 1),
    ],
)
def test_a_relation_in_a_block_holds_for_all_after_the_commit(end: bytes, columns: int) -> None:
    decoder = Decoder()
    decoder.decode(NARROW)
    in_a_block(decoder, WIDE, wire.insert(1, 1, "x"))
    assert values(decoder, 1) == [1]
    decoder.decode(end)
    assert len(decoder.relations[1].columns) == columns


def test_a_relation_that_was_announced_to_all_later_stays() -> None:
    decoder = Decoder()
    in_a_block(decoder, NARROW)
    decoder.decode(WIDE)
    decoder.decode(wire.stream_commit(9, 1, 2))
    assert values(decoder, 1, "x") == [1, "x"]


def test_after_an_aborted_sub_transaction_relations_are_announced_anew() -> None:
    decoder = Decoder()
    in_a_block(decoder, NARROW, wire.insert(1, 1))
    decoder.decode(wire.stream_abort(9, 10))
    with pytest.raises(DecodeError, match="which no Relation message announced"):
        in_a_block(decoder, wire.insert(1, 1))


def test_what_may_not_stand_in_a_block_is_not_due() -> None:
    decoder = Decoder()
    with pytest.raises(DecodeError, match="not due here"):
        decoder.decode(wire.stream_stop())
    decoder.decode(wire.stream_start(9))
    for message in (wire.begin(1), wire.stream_start(9), wire.stream_commit(9, 1, 2), wire.stream_abort(9, 9)):
        with pytest.raises(DecodeError, match="not due here"):
            decoder.decode(message)
    assert decoder.decode(wire.origin(0, "elsewhere")) == Origin(0, "elsewhere")


def test_a_file_of_another_streaming_is_named() -> None:
    """A Stream Abort with LSN and time, read as one without."""
    abort = b"A" + bytes(3) + b"\1" + bytes(3) + b"\2" + bytes(16) + b"\n"
    with pytest.raises(DecodeError, match="made with another option `streaming`"):
        list(Decoder(streaming="on").feed(abort))


def test_an_unknown_streaming_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="not 'parallell'"):
        Decoder(streaming="parallell")
