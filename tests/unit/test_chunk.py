"""A chunk's rows follow the stream: what the snapshot shows stays, what it does not show is applied."""

from __future__ import annotations

import random

from cdc.caching.fence import Snapshot
from cdc.chunk import Chunk, Window, key_of, moved_unsent
from cdc.events import Delete, Effect, Insert, RowChange, Truncate, Update
from cdc.lsn import Lsn
from cdc.relation import Column, Relation
from cdc.row import Row
from cdc.transaction import Transaction
from cdc.tuples import UNCHANGED, Cell

COLUMNS = (Column("id", 23, -1, True, int), Column("name", 25, -1, False, bytes.decode))
WELLS = Relation(1, "public", "wells", "d", COLUMNS, (0,))
SHOWS_10 = Snapshot(10, 20, frozenset({12}))
"""Shows 11 and 13, not 12, and nothing from 20 on."""


def row(key: int, name: str | None | Cell = "old") -> Row:
    return Row.of_cells(WELLS.whole, [str(key).encode(), name.encode() if isinstance(name, str) else name])


def old(key: int) -> Row:
    return Row.of_cells(WELLS.identity, [str(key).encode(), UNCHANGED])


def at(xid: int) -> tuple[Transaction, int]:
    return (Transaction("e", xid, Lsn(100), 0), 1)


def insert(xid: int, key: int, name: str = "new", relation: Relation = WELLS) -> RowChange:
    return Insert(at(xid), relation, None, row(key, name), Effect.ENTER)


def update(xid: int, key: int, name: str | Cell = "new", former: int | None = None) -> RowChange:
    return Update(at(xid), WELLS, None if former is None else old(former), row(key, name), Effect.STAY)


def delete(xid: int, key: int) -> RowChange:
    return Delete(at(xid), WELLS, old(key), None, Effect.LEAVE)


def after(*events: RowChange | Truncate, keys: tuple[int, ...] = (1, 2, 3)) -> dict[int, str]:
    """The rows of a chunk that had `keys` when these changes have been handed out."""
    window = Window(())
    for event in events[: len(events) // 2]:
        window.note(event)
    window.take(Chunk(SHOWS_10, WELLS, [row(key) for key in keys]))
    for event in events[len(events) // 2 :]:
        window.note(event)
    assert window.chunk is not None
    return {each["id"]: each["name"] for each in window.chunk.rows.values()}


def test_what_the_snapshot_shows_is_left_as_it_was_read() -> None:
    assert after(update(11, 1), delete(13, 2), update(13, 9, former=3)) == {1: "old", 2: "old", 3: "old"}


def test_what_it_does_not_show_is_applied() -> None:
    assert after(update(12, 1), delete(20, 2)) == {1: "new", 3: "old"}
    assert after(update(21, 9, former=3)) == {1: "old", 2: "old", 9: "new"}
    assert after(delete(12, 1), insert(20, 1)) == {2: "old", 3: "old"}, "the insert was handed over with all it has"
    assert after(Truncate(at(12), WELLS, False, False), insert(12, 2)) == {}


def test_a_value_that_was_not_sent_stays_the_one_that_was_read() -> None:
    assert after(update(12, 1, UNCHANGED)) == {1: "old", 2: "old", 3: "old"}
    assert after(update(12, 1, "newer"), update(20, 1, UNCHANGED))[1] == "newer"
    assert after(update(12, 7, UNCHANGED, former=1)) == {2: "old", 3: "old", 7: "old"}


def test_changes_of_rows_that_are_not_in_the_chunk_leave_it_alone() -> None:
    assert after(update(12, 8), insert(12, 9), delete(20, 10), update(20, 8, former=11)) == {
        1: "old",
        2: "old",
        3: "old",
    }


def test_a_key_that_moved_without_its_value() -> None:
    assert moved_unsent(update(12, 8, UNCHANGED, former=11)) == (b"8",)
    for event in (update(12, 8, "x", former=11), update(12, 8, UNCHANGED), update(12, 8, UNCHANGED, former=8)):
        assert moved_unsent(event) is None
    assert moved_unsent(delete(12, 1)) is None


def test_a_table_that_looks_different_makes_the_chunk_useless_unless_the_snapshot_shows_it() -> None:
    other = Relation(1, "public", "wells", "d", (*COLUMNS, Column("more", 25, -1, False, bytes.decode)), (0,))
    for xid, useless in ((11, False), (12, True)):
        chunk = Chunk(SHOWS_10, WELLS, [row(1)])
        chunk.follow(insert(xid, 1, relation=other))
        assert chunk.reshaped is useless
    chunk = Chunk(SHOWS_10, WELLS, [row(1)])
    chunk.follow(insert(12, 5, relation=Relation(1, "public", "wells", "d", COLUMNS, (0,))))
    assert not chunk.reshaped, "the same table, announced once more"


def test_transactions_from_before_the_window_have_to_be_visible() -> None:
    window = Window({9, 11, 12, 25})
    assert window.see(SHOWS_10) == {12, 25}
    assert window.see(Snapshot(20, 30, frozenset())) == set()
    assert not window.is_too_long
    short = Window((), most=1)
    short.note(insert(12, 1))
    short.note(insert(12, 2))
    assert short.is_too_long


class History:
    """Transactions of one change each, and the table after each of them."""

    def __init__(self, source: random.Random, first: int = 100, length: int = 30) -> None:
        self.changes: list[RowChange] = []
        self.keys: list[set[int]] = []
        self.states: list[dict[int, str]] = [dict.fromkeys(range(0, 12, 2), "0")]
        for xid in range(first, first + length):
            state, key = dict(self.states[-1]), source.randrange(12)
            target = key
            if key not in state:
                state[key] = str(xid)
                self.changes.append(insert(xid, key, str(xid)))
            elif source.random() < 0.3:
                del state[key]
                self.changes.append(delete(xid, key))
            else:
                target = source.choice([key, *(each for each in range(12) if each not in state)])
                sent: str | Cell = source.choice([str(xid), UNCHANGED])
                former = state.pop(key)
                state[target] = sent if isinstance(sent, str) else former
                self.changes.append(update(xid, target, sent, None if target == key else key))
            self.keys.append({key, target})
            self.states.append(state)

    def shown(self, invisible: set[int], upto: int) -> dict[int, str]:
        """The table as a snapshot shows it that sees the first `upto` changes but for some."""
        state = dict(self.states[0])
        for number in range(upto):
            if number not in invisible:
                for key in self.keys[number]:
                    state.pop(key, None)
                    if key in self.states[number + 1]:
                        state[key] = self.states[number + 1][key]
        return state

    def behind(self, invisible: set[int]) -> set[int]:
        """With those that had to wait for a lock of one of them."""
        found: set[int] = set()
        for number, keys in enumerate(self.keys):
            if number in invisible or any(keys & self.keys[other] for other in found):
                found.add(number)
        return found


def test_histories_at_random() -> None:
    """Transactions commit in one order and become visible in another; the rows are right wherever they are merged."""
    merged = 0
    for seed in range(600):
        source = random.Random(seed)
        history = History(source)
        ends = source.randrange(1, 30)
        invisible = history.behind({number for number in range(ends) if source.random() < 0.15})
        snapshot = Snapshot(100, 100 + ends, frozenset(100 + number for number in invisible))
        opened = source.randrange(min([*invisible, ends]) + 1)
        taken = source.randrange(opened, 30)
        window = Window(range(100, 100 + opened))
        for number, event in enumerate(history.changes[opened:], opened):
            if number == taken:
                assert not window.see(snapshot)
                shown = history.shown(invisible, ends)
                window.take(Chunk(snapshot, WELLS, [row(key, value) for key, value in shown.items()]))
            window.note(event)
            if window.chunk is not None and number + 1 >= ends:
                for each in window.chunk.rows.values():
                    merged += 1
                    assert history.states[number + 1].get(each["id"]) == each["name"], seed
        assert window.chunk is not None
        assert all(key_of(WELLS, each) == key for key, each in window.chunk.rows.items())
    assert merged > 10_000
