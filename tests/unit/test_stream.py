"""The conversation from bytes: positions, skipping, what may be confirmed, when feedback is due."""

from __future__ import annotations

from struct import unpack

import pytest

import cdc
from cdc.events import RowChange
from cdc.lsn import Lsn
from cdc.pgoutput import Decoder, RelationMessage, describe
from cdc.spool import MemoryOrFile
from cdc.stream import Reached, Stream
from cdc.values import Types
from tests.unit import wire

COLUMNS = [("id", 23, True), ("name", 25, False)]


def stream(finished: tuple[int, int] | None = None, start: int = 0) -> Stream:
    return Stream("ep", Lsn(start), finished, 10.0, MemoryOrFile(1 << 20))  # type: ignore[arg-type]


def feed(target: Stream, *messages: bytes) -> list:
    """Hand over messages as frames; define relations as the loop does; what came out."""
    received = []
    for message in messages:
        item = target.receive(memoryview(message if message[:1] in b"k" else wire.xlog(message)))
        if isinstance(item, RelationMessage):
            target.define(describe(item, Types(), ["id"]))
        elif isinstance(item, list):
            received += item
        elif item is not None:
            received.append(item)
    return received


def changes(received: list) -> list:
    return [item for item in received if isinstance(item, RowChange | cdc.Truncate)]


def test_changes_have_positions() -> None:
    received = feed(
        stream(),
        wire.begin(100, 7),
        wire.relation(1, COLUMNS),
        wire.insert(1, 1, "a"),
        wire.insert(1, 2, "b"),
        wire.commit(100, 110),
    )
    assert [str(change.position) for change in changes(received)] == ["ep:0/64:1", "ep:0/64:2"]
    assert [change.new["name"] for change in changes(received)] == ["a", "b"]
    assert changes(received)[0].xid == 7


def test_each_relation_of_a_truncate_takes_an_ordinal_and_messages_take_none() -> None:
    received = feed(
        stream(),
        wire.begin(100),
        wire.relation(1, COLUMNS),
        wire.relation(2, COLUMNS),
        wire.logical("p", b""),
        wire.truncate([1, 2]),
        wire.insert(1, 1, "a"),
        wire.logical("p", b"", transactional=False),
        wire.insert(1, 2, "a"),
    )
    assert [change.position.ordinal for change in changes(received)] == [1, 2, 3, 4]


def test_what_was_finished_before_is_skipped() -> None:
    target = stream(finished=(200, 1))
    one = [wire.begin(100), wire.relation(1, COLUMNS), wire.insert(1, 1, "a"), wire.commit(100, 110)]
    two = [wire.begin(200), wire.insert(1, 2, "b"), wire.insert(1, 3, "c"), wire.commit(200, 210)]
    three = [wire.begin(300), wire.truncate([1]), wire.commit(300, 310)]
    assert [str(c.position) for c in changes(feed(target, *one, *two, *three))] == ["ep:0/C8:2", "ep:0/12C:1"]


def test_only_the_end_of_a_commit_is_finished() -> None:
    target = stream(start=50)
    feed(target, wire.begin(100), wire.relation(1, COLUMNS), wire.insert(1, 1, "a"))
    assert target.standby.finished_lsn == 50
    feed(target, wire.keepalive(500))
    assert target.standby.finished_lsn == 50, "a keepalive inside a transaction promises nothing"
    feed(target, wire.commit(100, 110))
    assert target.standby.finished_lsn == 110
    (item,) = feed(target, wire.keepalive(500))
    assert item is Reached.REACHED and target.standby.finished_lsn == 500


def test_feedback_confirms_what_was_confirmed_and_nothing_else() -> None:
    target = stream(start=50)
    feed(target, wire.begin(100), wire.commit(100, 110))
    first = target.standby.status_update(0.0, 77)
    assert first is not None
    assert unpack(">cQQQqB", first) == (b"r", 110, 50, 50, 77, 0)
    assert target.standby.status_update(9.9, 0) is None
    assert target.standby.status_update(10.0, 0) is not None
    target.standby.confirm(Lsn(110))
    confirmed = target.standby.status_update(10.1, 0)
    assert confirmed is not None and unpack(">cQQQqB", confirmed)[1:4] == (110, 110, 110)
    target.standby.confirm(Lsn(60))
    assert target.standby.confirmed_lsn == 110


def test_a_keepalive_that_wants_an_answer_gets_one_at_once() -> None:
    target = stream()
    assert target.standby.status_update(0.0, 0) is not None
    feed(target, wire.keepalive(10, reply=True))
    assert target.standby.status_update(0.1, 0) is not None
    assert target.standby.status_update(0.2, 0) is None


def test_asking_for_a_keepalive_sets_the_flag_once() -> None:
    target = stream()
    target.standby.status_update(0.0, 0)
    target.standby.ask_keepalive()
    asked = target.standby.status_update(0.1, 0)
    assert asked is not None and asked[-1] == 1
    assert target.standby.status_update(0.2, 0) is None


def test_unsent_values_are_restored_from_a_whole_old_row() -> None:
    columns = [("id", 23, True), ("name", 25, True)]
    messages = [wire.begin(1), wire.relation(1, columns, "f"), wire.update(1, (1, wire.UNSENT), (1, "long"), "O")]
    (update,) = changes(feed(stream(), *messages))
    assert update.new["name"] == "long"


def test_a_key_only_old_row_shows_its_key_and_nothing_else() -> None:
    messages = [wire.begin(1), wire.relation(1, COLUMNS), wire.delete(1, (5, None))]
    (gone,) = changes(feed(stream(), *messages))
    assert dict(gone.old) == {"id": 5} and gone.key == 5
    with pytest.raises(KeyError):
        gone.old["name"]


def test_the_key_under_full_is_the_primary_key_if_the_message_has_it() -> None:
    def key(primary_key: list[str]) -> object:
        message = Decoder().decode(wire.relation(1, [("id", 23, True), ("name", 25, True)], "f"))
        return describe(message, Types(), primary_key).key  # type: ignore[arg-type]

    assert (key(["id"]), key(["name", "id"]), key([]), key(["id", "gone"])) == ((0,), (0, 1), None, None)


@pytest.mark.parametrize(
    ("frame", "problem"),
    [
        (b"", "not a frame"),
        (b"x", "not a frame"),
        (b"w123", "XLogData frame ends early"),
        (b"k123", "keepalive ends early"),
        (wire.xlog(wire.insert(9, 1)), "outside of a transaction"),
    ],
)
def test_frames_that_are_none(frame: bytes, problem: str) -> None:
    with pytest.raises(cdc.DecodeError, match=problem):
        stream().receive(frame)


def test_a_change_of_an_unknown_relation_names_its_lsn() -> None:
    target = stream()
    feed(target, wire.begin(1))
    with pytest.raises(cdc.DecodeError, match="relation 9, which no Relation message announced.*at LSN 0/ABC"):
        target.receive(wire.xlog(wire.insert(9, 1), start=0xABC))


def test_a_stray_stream_abort_is_ignored() -> None:
    """PostgreSQL 18 can send one on protocol 1."""
    assert feed(stream(), b"A" + bytes(8)) == []
