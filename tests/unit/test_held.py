"""Transactions that are held back, from bytes: streamed ones, prepared ones, and what may be confirmed meanwhile."""

from __future__ import annotations

from typing import Any

import pytest

from cdc import DecodeError
from cdc.holding import Committed, PreparedEnd
from cdc.spool import MemoryOrFile
from tests.unit import wire
from tests.unit.wire import in_block
from tests.wire.recording import Conversation

ID = [("id", 23, True)]
NAMED = [("id", 23, True), ("name", 25, False)]


class Talk:
    """A conversation in which messages are given and events come out as short texts."""

    def __init__(self, budget: int = 1 << 20, finished: tuple[int, int] | None = None) -> None:
        self.spool = MemoryOrFile(budget)
        self.conversation = Conversation(self.spool, finished=finished)
        self.standby = self.conversation.stream.standby

    def __call__(self, *messages: bytes) -> list[str]:
        return [_short(event) for message in messages for event in self.conversation.receive(_framed(message))]

    def block(self, xid: int, *messages: bytes, first: bool = False) -> list[str]:
        """A block of a streamed transaction; messages are of the transaction itself unless they name a `sub`."""
        inside = [each if isinstance(each, Of) else in_block(xid, each) for each in messages]
        return self(wire.stream_start(xid, first), *inside, wire.stream_stop())

    def small(self, lsn: int, *messages: bytes, xid: int = 7) -> list[str]:
        return self(wire.begin(lsn, xid), *messages, wire.commit(lsn, lsn + 5))


class Of(bytes):
    """A message as it stands in a block, with its xid."""


def of(subxid: int, message: bytes) -> Of:
    return Of(in_block(subxid, message))


def _framed(message: bytes) -> bytes:
    return message if message[:1] == b"k" else wire.xlog(message)


def _short(event: Any) -> str:
    if isinstance(event, PreparedEnd):
        return f"{event.gid} {'rolled back' if event.rolled_back else 'prepared'}"
    values = ",".join(str(value) for value in (event.new if hasattr(event, "new") else {}).values())
    return f"{event.event_type[0]} {values} @{int(event.position.commit_lsn)}:{event.position.ordinal}"


# Streamed transactions.


@pytest.mark.parametrize("budget", [0, 100, 1 << 20])
def test_interleaved_transactions_come_whole_and_in_the_order_of_their_commits(budget: int) -> None:
    talk = Talk(budget)
    relation = wire.relation(1, ID)
    assert talk.block(10, relation, wire.insert(1, 1), first=True) == []
    assert talk.block(20, relation, wire.insert(1, 2), first=True) == []
    assert talk.block(10, wire.insert(1, 3)) == []
    assert talk.small(100, relation, wire.insert(1, 4)) == ["I 4 @100:1"]
    assert talk.block(20, wire.insert(1, 5)) == []
    assert talk(wire.stream_commit(20, 200, 205)) == ["I 2 @200:1", "I 5 @200:2"]
    assert talk.block(10, wire.insert(1, 6)) == []
    assert talk(wire.stream_commit(10, 300, 305)) == ["I 1 @300:1", "I 3 @300:2", "I 6 @300:3"]
    assert talk.spool.in_memory == 0 and (talk.spool.written > 0) == (budget < 1000)


def test_rows_of_an_aborted_sub_transaction_are_dropped_and_take_no_ordinal() -> None:
    talk = Talk()
    talk.block(10, wire.relation(1, ID), wire.insert(1, 1), of(11, wire.insert(1, 2)), of(12, wire.insert(1, 3)))
    talk(wire.stream_abort(10, 11))
    talk.block(10, of(13, wire.insert(1, 4)), of(13, wire.truncate([1])), wire.insert(1, 5))
    talk(wire.stream_abort(10, 13, 77, 0))
    assert talk(wire.stream_commit(10, 100, 105)) == ["I 1 @100:1", "I 3 @100:2", "I 5 @100:3"]


@pytest.mark.parametrize("budget", [0, 1 << 20])
def test_an_aborted_transaction_leaves_nothing(budget: int) -> None:
    talk = Talk(budget)
    talk.block(10, wire.relation(1, ID), wire.insert(1, 1), of(11, wire.insert(1, 2)))
    assert talk(wire.stream_abort(10, 11), wire.stream_abort(10, 10)) == []
    assert talk.spool.in_memory == 0 and not talk.spool._open
    with pytest.raises(DecodeError, match="streamed transaction 10, which never began"):
        talk(wire.stream_commit(10, 100, 105))


def test_an_abort_of_an_unknown_transaction_is_ignored() -> None:
    talk = Talk()
    talk.block(10, wire.relation(1, ID), wire.insert(1, 1))
    assert talk(wire.stream_abort(99, 99), wire.stream_abort(99, 98)) == []
    assert talk(wire.stream_commit(10, 100, 105)) == ["I 1 @100:1"]


def test_messages_and_origins_in_a_block_take_no_ordinal() -> None:
    talk = Talk()
    origin = Of(wire.origin(0, "elsewhere"))
    talk.block(10, origin, wire.logical("p", b"x"), wire.relation(1, ID), wire.type_message(9, "t"), wire.insert(1, 1))
    assert talk(wire.stream_commit(10, 100, 105)) == ["I 1 @100:1"]


def test_a_change_that_was_finished_before_is_skipped() -> None:
    talk = Talk(finished=(100, 2))
    talk.block(10, wire.relation(1, ID), wire.insert(1, 1), of(11, wire.insert(1, 9)), wire.insert(1, 2))
    talk(wire.stream_abort(10, 11))
    talk.block(10, wire.insert(1, 3))
    assert talk(wire.stream_commit(10, 100, 105)) == ["I 3 @100:3"]


# Relations inside.


def test_a_relation_in_a_streamed_transaction_holds_for_it_only_and_after_its_commit_for_all() -> None:
    talk = Talk()
    talk.small(10, wire.relation(1, ID), wire.insert(1, 1))
    talk.block(20, wire.relation(1, NAMED), wire.insert(1, 2, "b"))
    assert talk.small(30, wire.insert(1, 3)) == ["I 3 @30:1"]
    assert talk(wire.stream_commit(20, 40, 45)) == ["I 2,b @40:1"]
    assert talk.small(50, wire.insert(1, 5, "e")) == ["I 5,e @50:1"]


def test_a_newer_announcement_to_all_counts_for_more_than_the_committed_one() -> None:
    talk = Talk()
    talk.block(20, wire.relation(1, ID), wire.insert(1, 2))
    talk.small(30, wire.relation(1, NAMED), wire.insert(1, 3, "c"))
    assert talk(wire.stream_commit(20, 40, 45)) == ["I 2 @40:1"]
    assert talk.small(50, wire.insert(1, 5, "e")) == ["I 5,e @50:1"]


def test_a_relation_of_an_aborted_transaction_never_was() -> None:
    talk = Talk()
    talk.small(10, wire.relation(1, ID), wire.insert(1, 1))
    talk.block(20, wire.relation(1, NAMED), wire.insert(1, 2, "b"))
    talk(wire.stream_abort(20, 20))
    assert talk.small(30, wire.insert(1, 3)) == ["I 3 @30:1"]


def test_what_only_an_aborted_sub_transaction_announced_does_not_bring_an_older_relation_back() -> None:
    """The transaction began under ID; meanwhile NAMED was announced to all, then another in the sub-transaction."""
    talk = Talk()
    talk.small(10, wire.relation(1, ID), wire.insert(1, 1))
    talk.block(20, wire.relation(2, ID), wire.insert(2, 2))
    talk.small(30, wire.relation(1, NAMED), wire.insert(1, 3, "c"))
    talk.block(20, of(21, wire.relation(1, ID)), of(21, wire.insert(1, 4)))
    talk(wire.stream_abort(20, 21))
    assert talk(wire.stream_commit(20, 40, 45)) == ["I 2 @40:1"]
    assert talk.small(50, wire.insert(1, 5, "e")) == ["I 5,e @50:1"]


def test_a_definition_that_changes_inside_a_streamed_transaction_is_followed_in_order() -> None:
    talk = Talk()
    talk.block(20, wire.relation(1, ID), wire.insert(1, 1), wire.relation(1, NAMED), wire.insert(1, 2, "b"))
    assert talk(wire.stream_commit(20, 40, 45)) == ["I 1 @40:1", "I 2,b @40:2"]


# Prepared transactions.


def prepared(gid: str, lsn: int, *messages: bytes) -> list[bytes]:
    return [wire.begin_prepare(lsn, lsn + 5, gid), *messages, wire.prepare(lsn, lsn + 5, gid)]


def test_a_prepared_transaction_waits_for_its_commit_and_holds_confirmations_back() -> None:
    talk = Talk()
    assert talk(*prepared("one", 100, wire.relation(1, ID), wire.insert(1, 1))) == ["one prepared"]
    assert talk.standby.finished_lsn == 105 and talk.standby.safe_lsn == 100
    assert talk.small(200, wire.insert(1, 2)) == ["I 2 @200:1"], "its relation holds for all at once"
    assert talk.standby.finished_lsn == 205 and talk.standby.safe_lsn == 100
    talk(wire.keepalive(250))
    assert talk.standby.safe_lsn == 100
    assert talk(wire.commit_prepared(300, 305, "one")) == ["I 1 @300:1"]
    assert talk.standby.safe_lsn == talk.standby.finished_lsn == 305
    assert not talk.spool._open


def test_a_prepared_transaction_that_is_rolled_back_is_told_of_and_forgotten() -> None:
    talk = Talk()
    talk(*prepared("one", 100, wire.relation(1, ID), wire.insert(1, 1)))
    assert talk(wire.rollback_prepared(105, 205, "one")) == ["one rolled back"]
    assert talk.standby.safe_lsn == 205 and not talk.spool._open
    assert talk(wire.rollback_prepared(105, 305, "unknown")) == []
    assert talk.standby.safe_lsn == 305


def test_the_oldest_of_several_prepared_transactions_counts() -> None:
    talk = Talk()
    for gid, lsn in (("one", 100), ("two", 200), ("three", 300)):
        talk(*prepared(gid, lsn, wire.relation(1, ID), wire.insert(1, lsn)))
    assert talk.standby.safe_lsn == 100
    assert talk(wire.commit_prepared(400, 405, "two")) == ["I 200 @400:1"]
    assert talk.standby.safe_lsn == 100
    talk(wire.rollback_prepared(105, 505, "one"))
    assert talk.standby.safe_lsn == 300
    assert talk(wire.commit_prepared(600, 605, "three")) == ["I 300 @600:1"]
    assert talk.standby.safe_lsn == 605


@pytest.mark.parametrize("budget", [0, 1 << 20])
def test_a_streamed_transaction_may_be_prepared(budget: int) -> None:
    talk = Talk(budget)
    talk.block(10, wire.relation(1, ID), wire.insert(1, 1), of(11, wire.insert(1, 2)))
    talk(wire.stream_abort(10, 11))
    assert talk(wire.stream_prepare(100, 105, "big", 10)) == ["big prepared"]
    assert talk.standby.safe_lsn == 100
    assert talk(wire.commit_prepared(300, 305, "big", 10)) == ["I 1 @300:1"]
    assert talk.standby.safe_lsn == 305 and talk.spool.in_memory == 0 and not talk.spool._open


def test_the_tables_of_a_prepared_transaction_are_known_before_it_commits() -> None:
    talk = Talk()
    stream = talk.conversation.stream
    talk.block(10, wire.relation(1, ID), wire.relation(2, ID), wire.insert(1, 1), wire.delete(2, (1,)))
    ended = stream.receive(wire.xlog(wire.stream_prepare(100, 105, "big", 10)))
    assert isinstance(ended, PreparedEnd) and ended.held.changed == {1, 2}
    talk(wire.begin_prepare(200, 205, "small"), wire.relation(3, ID), wire.insert(3, 1))
    ended = stream.receive(wire.xlog(wire.prepare(200, 205, "small")))
    assert isinstance(ended, PreparedEnd) and ended.held.changed == {3}
    assert ended.held.tables == {("public", "wells")}
    talk(wire.begin_prepare(300, 305, "emptied"), wire.truncate([3, 1]))
    ended = stream.receive(wire.xlog(wire.prepare(300, 305, "emptied")))
    assert isinstance(ended, PreparedEnd) and ended.held.changed == {1, 3}


def test_a_commit_of_a_transaction_that_was_prepared_before_the_connection() -> None:
    talk = Talk()
    committed = talk.conversation.stream.receive(wire.xlog(wire.commit_prepared(300, 305, "old")))
    assert isinstance(committed, Committed) and committed.held is None and committed.gid == "old"
    assert list(talk.conversation.stream.deliver(committed)) == []
    assert talk.standby.finished_lsn == 305


def test_an_open_streamed_transaction_does_not_hold_confirmations_back() -> None:
    """The server keeps what it needs to send it again."""
    talk = Talk()
    talk.block(10, wire.relation(1, ID), wire.insert(1, 1))
    talk(wire.keepalive(500))
    assert talk.standby.safe_lsn == 500


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ([wire.stream_stop()], "Stream Stop without"),
        ([wire.prepare(1, 2, "one")], "Prepare without"),
        ([wire.stream_commit(1, 2, 3)], "never began"),
        ([wire.stream_prepare(1, 2, "one")], "never began"),
        ([wire.stream_start(1), wire.stream_start(1)], "not due here"),
        ([wire.stream_start(1), wire.begin(1)], "not due here"),
        ([wire.begin_prepare(1, 2, "one"), wire.begin(1)], "not due here"),
        ([wire.begin_prepare(1, 2, "one"), wire.stream_start(1)], "not due here"),
        ([wire.insert(1, 1)], "outside of a transaction"),
    ],
)
def test_messages_that_are_not_due(messages: list[bytes], problem: str) -> None:
    with pytest.raises(DecodeError, match=problem) as caught:
        Talk()(*messages)
    assert caught.value.lsn == 1 and caught.value.kind == chr(messages[-1][0])
