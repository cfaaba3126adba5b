"""Logical messages from bytes: where they stand, what is skipped, and when it is not known what was rolled back."""

from __future__ import annotations

from typing import Any

import pytest

import cdc
from cdc.events import RowChange
from cdc.holding import Committed
from cdc.pgoutput import RelationMessage, describe
from cdc.progress import Progress
from cdc.spool import MemoryOrFile
from cdc.stream import Stream
from cdc.transaction import Transaction
from tests.unit import wire
from tests.unit.wire import in_block
from tests.wire.recording import Conversation, Recording, recordings

ID = [("id", 23, True)]
TRANSACTION = [wire.begin(100, 7), wire.logical("p", b"a", lsn=10), wire.relation(1, ID), wire.insert(1, 1)]
REST = [wire.logical("p", b"b", lsn=20), wire.insert(1, 2), wire.logical("q", b"c", lsn=30), wire.commit(100, 110)]


class Heard(Conversation):
    """A conversation that tells of messages, too."""

    def __init__(self, finished: Any = None) -> None:
        super().__init__(MemoryOrFile(1 << 20), finished=finished)
        self.held: list[Committed] = []

    def told(self, *frames: bytes) -> list[Any]:
        found: list[Any] = []
        for frame in frames:
            item = self.stream.receive(frame)
            if isinstance(item, cdc.Message | RowChange):
                found.append(item)
            elif isinstance(item, Committed):
                self.held.append(item)
                found += [each for held in self.stream.deliver(item) for each in self.told(*held)]
            elif isinstance(item, RelationMessage):
                self.stream.define(describe(item, self.types, ["id"]))
        return found


def framed(*messages: bytes) -> list[bytes]:
    return [wire.xlog(message) for message in messages]


def contents(events: list[Any]) -> list[Any]:
    return [event.content.decode() if isinstance(event, cdc.Message) else event.key for event in events]


def test_a_message_stands_at_the_row_before_it() -> None:
    events = Heard().told(*framed(*TRANSACTION, *REST))
    assert contents(events) == ["a", 1, "b", 2, "c"]
    assert [str(event.position) for event in events] == [f"ep:0/64:{ordinal}" for ordinal in (0, 1, 1, 2, 2)]
    assert [int(event.lsn) for event in events if isinstance(event, cdc.Message)] == [10, 20, 30]
    assert all(event.xid == 7 for event in events)


@pytest.mark.parametrize(
    ("finished", "left"),
    [
        ((99, 9), ["a", 1, "b", 2, "c"]),
        ((100, 0), ["a", 1, "b", 2, "c"]),
        ((100, 1), ["b", 2, "c"]),
        ((100, 2), ["c"]),
        ((101, 0), []),
    ],
)
def test_what_was_finished_before_is_skipped_as_far_as_a_position_says(finished: Any, left: list[Any]) -> None:
    assert contents(Heard(finished).told(*framed(*TRANSACTION, *REST))) == left


def test_one_that_is_not_transactional_has_no_place() -> None:
    heard = Heard((500, 3))
    (event,) = heard.told(*framed(wire.logical("p", b"a", transactional=False, lsn=10)))
    assert event.position is event.xid is event.commit_time is None and not event.transactional
    assert heard.stream.standby.finished_lsn == 0
    with pytest.raises(cdc.DecodeError, match="a transactional message outside of a transaction"):
        heard.told(*framed(wire.logical("p", b"a")))


def test_a_process_knows_which_it_has_had() -> None:
    progress = Progress()

    def message(lsn: int, commit_lsn: int | None, epoch: str = "ep") -> tuple[cdc.Message, str]:
        transaction = None if commit_lsn is None else Transaction(epoch, 7, cdc.Lsn(commit_lsn), 0)
        return cdc.Message(transaction and (transaction, 0), "p", b"", cdc.Lsn(lsn)), epoch

    early, late, at_once = message(10, 100), message(20, 100), message(50, None)
    assert not any(progress.has_heard(*each) for each in (early, late, at_once))
    progress.hear(*early)
    assert [progress.has_heard(*each) for each in (early, late, at_once)] == [True, False, False]
    progress.hear(*at_once)
    progress.hear(*late)
    assert all(progress.has_heard(*each) for each in (early, late, at_once))
    assert progress.has_heard(*message(90, 99)), "an earlier commit"
    assert not progress.has_heard(*message(15, 101)), "written earlier, committed later"
    assert not progress.has_heard(*message(10, 100, "another"))
    progress.hear(*message(1, 5, "another"))
    assert not progress.has_heard(*late)


def block(xid: int, *messages: bytes) -> list[bytes]:
    return framed(wire.stream_start(xid, True), *messages, wire.stream_stop())


@pytest.mark.parametrize(
    ("messages", "aborted", "unsure"),
    [
        ([in_block(10, wire.logical("p", b"a"))], [], False),
        ([in_block(10, wire.logical("p", b"a"))], [11], True),
        ([in_block(11, wire.insert(1, 1))], [11], False),
        ([in_block(11, wire.insert(1, 1)), in_block(10, wire.logical("p", b"a"))], [11, 12], True),
    ],
)
def test_an_aborted_part_of_a_streamed_transaction_may_have_had_messages(
    messages: list[bytes], aborted: list[int], unsure: bool
) -> None:
    heard = Heard()
    relation = in_block(10, wire.relation(1, ID))
    heard.told(*block(10, relation, *messages), *framed(*(wire.stream_abort(10, subxid) for subxid in aborted)))
    heard.told(*framed(wire.stream_commit(10, 100, 110)))
    assert [committed.held and committed.held.unsure for committed in heard.held] == [unsure]


# What servers sent.


def in_recording(recording: Recording) -> list[Any]:
    return [each for each in Heard().told(*recording.frames()) if isinstance(each, cdc.Message)]


@pytest.mark.parametrize("recording", [each for each in recordings() if "proto1" in each.variant], ids=str)
def test_recorded_messages_are_those_that_were_committed(recording: Recording) -> None:
    found = [(each.content.decode("latin-1"), each.transactional) for each in in_recording(recording)]
    assert found == [
        ("at once", False),
        ("in a transaction", True),
        ("\0\xff", False),
        ("a, kept", True),
        ("the end", True),
    ]


@pytest.mark.parametrize("recording", [each for each in recordings() if "proto1" not in each.variant], ids=str)
def test_recorded_messages_of_aborted_parts_are_known_to_be_unsure(recording: Recording) -> None:
    """Streaming shows those of a sub-transaction that was rolled back: its transaction is marked."""
    heard = Heard()
    found = heard.told(*recording.frames())
    unsure = {each.xid for each in heard.held if each.held is not None and each.held.unsure}
    never = [each for each in found if isinstance(each, cdc.Message) and b"never" in each.content]
    assert {each.xid for each in never} == unsure != set()


def test_streams_do_not_need_anybody_who_listens() -> None:
    assert Stream("ep", cdc.Lsn(0), None, 10.0, MemoryOrFile(1)).receive(framed(wire.logical("p", b"", False))[0])
