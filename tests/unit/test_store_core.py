"""The pure core of stores: keys, contents, and what becomes of rows by changes, with and without a fill under way."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest

import cdc
from cdc.caching.fence import Snapshot
from cdc.chunk import Window
from cdc.events import Delete, Effect, Insert, RowChange, Truncate, Update
from cdc.lsn import Lsn
from cdc.predicate import equal
from cdc.relation import Column, Relation
from cdc.row import Row
from cdc.storing.feed import Feed
from cdc.storing.keys import NOWHERE, Keys
from cdc.storing.lens import Lens
from cdc.storing.line import line_of
from cdc.storing.line_chunk import LineChunk
from cdc.storing.store import Store
from cdc.storing.telling import Filled
from cdc.transaction import Transaction
from cdc.tuples import UNCHANGED, Cell
from cdc.values import Types

TYPES = Types()
INT, TEXT, NUMERIC = 23, 25, 1700


def relation(*columns: tuple[str, int], key: tuple[int, ...] = (0,)) -> Relation:
    made = tuple(
        Column(name, oid, -1, place in key, lambda cell, oid=oid: int(cell) if oid == INT else cell.decode())
        for place, (name, oid) in enumerate(columns)
    )
    return Relation(1, "public", "wells", "d", made, key)


WELLS = relation(("id", INT), ("name", TEXT), ("notes", TEXT))


def lens(of: Relation = WELLS, name: bytes | None = None) -> Lens:
    return Lens(of, TYPES.equality, None if name is None else equal(1, name, None))


def store(looks: Lens) -> tuple[Store, list[tuple[Any, str]]]:
    made = Store("public.wells")
    made.feed = Feed(made, "public", "wells", None, None, None, lambda feed: None)
    made.bind(looks)
    told: list[tuple[Any, str]] = []
    made.on_change(lambda change: told.append((change.key, change.effect.value)))
    return made, told


def filled(looks: Lens) -> tuple[Store, list[tuple[Any, str]]]:
    made, told = store(looks)
    made.receive(Filled("public.wells"))
    return made, told


def place(number: int, xid: int) -> Any:
    return Transaction("epoch", xid, Lsn(number * 100), 0), 1


def cells(id: int, name: Any, notes: Any) -> list[Cell]:
    return [str(id).encode(), name, notes]


def key_only(id: int) -> Row:
    return Row.of_cells(WELLS.identity, [str(id).encode(), UNCHANGED, UNCHANGED])


def whole(*values: Any) -> Row:
    return Row.of_cells(WELLS.whole, cells(*values))


def insert(number: int, row: Row) -> Insert:
    return Insert(place(number, number), WELLS, None, row, Effect.ENTER)


def update(number: int, old: Row | None, new: Row) -> Update:
    return Update(place(number, number), WELLS, old, new, Effect.STAY)


def delete(number: int, id: int) -> Delete:
    return Delete(place(number, number), WELLS, key_only(id), None, Effect.LEAVE)


def test_keys_are_found_in_lines_as_in_cells() -> None:
    of = relation(("a", TEXT), ("b", INT), ("c", NUMERIC))
    lines = [line_of([f"x\\\t{n}".encode(), str(n).encode(), f"{n}.50".encode()]) for n in range(5)]
    for places in ((0,), (1,), (2,), (1, 0), (0, 1, 2)):
        keys = Keys(of, places, TYPES.equality)
        found = keys.of_lines(lines)
        assert list(found.values()) == lines and len(found) == 5
        assert [keys.of_cells([f"x\\\t{n}".encode(), str(n).encode(), f"{n}.5".encode()]) for n in range(5)] == list(
            found
        )
    assert Keys(of, (1,), TYPES.equality).of_python(2**80) is NOWHERE
    assert Keys(of, (0, 1), TYPES.equality).of_python(("x", 2**80)) is NOWHERE
    with pytest.raises(cdc.SubscriptionError, match="no published column 'd'; it has a, b, c"):
        Keys.of(of, ["d"], TYPES.equality)
    with pytest.raises(cdc.SubscriptionError, match="has no key"):
        Lens(relation(("a", TEXT), key=()), TYPES.equality)


def test_an_update_without_an_old_row_leaves_what_is_held() -> None:
    kept, told = filled(lens(name=b"in"))
    kept.receive(insert(1, whole(1, b"in", b"n")))
    kept.receive(insert(2, whole(2, b"out", b"n")))
    kept.receive(update(3, None, whole(1, b"out", UNCHANGED)))
    kept.receive(update(4, None, whole(2, b"out", UNCHANGED)))
    assert told == [(1, "ENTER"), (1, "LEAVE")] and len(kept) == 0 and not kept.holes


def test_a_value_that_was_not_sent_is_that_of_the_row_that_is_held_or_is_asked_for() -> None:
    kept, told = filled(lens(name=b"in"))
    kept.receive(insert(1, whole(1, b"in", b"long")))
    kept.receive(update(2, key_only(1), whole(9, b"in", UNCHANGED)))
    assert kept[9]["notes"] == "long" and told == [(1, "ENTER"), (1, "LEAVE"), (9, "ENTER")]
    kept.receive(update(3, None, whole(2, b"in", UNCHANGED)))
    assert 2 not in kept and list(kept.holes.values()) == [("2",)]
    kept.receive(update(4, key_only(2), whole(3, b"in", UNCHANGED)))
    assert list(kept.holes.values()) == [("3",)]
    kept.receive(update(5, None, whole(3, b"in", b"sent")))
    assert kept[3]["notes"] == "sent" and not kept.holes
    kept.receive(update(6, None, whole(4, b"in", UNCHANGED)))
    kept.receive(delete(7, 4))
    assert not kept.holes


def test_rows_that_change_their_keys_in_turn() -> None:
    """Under FULL the old row tells that another one has taken its key meanwhile."""
    kept, _ = filled(lens())
    for number, name in ((1, b"one"), (2, b"two")):
        kept.receive(insert(number, whole(number, name, b"")))
    kept.receive(update(3, whole(1, b"one", b""), whole(2, b"one", b"")))
    kept.receive(update(4, whole(2, b"two", b""), whole(1, b"two", b"")))
    assert {key: row["name"] for key, row in kept.items()} == {1: "two", 2: "one"}


def test_what_is_gathered_takes_the_place_of_what_is_shown_when_it_is_whole() -> None:
    kept, told = filled(lens())
    for number in (1, 2, 3):
        kept.receive(insert(number, whole(number, b"name", b"")))
    told.clear()
    by_name = kept.index("name")
    kept.want("a test")
    kept.receive(insert(4, whole(4, b"new", b"")))
    kept.merge(LineChunk(Snapshot(9, 9, frozenset()), lens(), [b"2\tname\t", b"3\tother\t"]).rows, place(5, 0))
    assert sorted(kept) == [1, 2, 3] and not told and by_name["new"] == ()
    kept.receive(Filled("public.wells"))
    assert sorted(told) == [(1, "LEAVE"), (3, "STAY"), (4, "ENTER")]
    assert {value: [row["id"] for row in rows] for value, rows in by_name.items()} == {
        "new": [4], "name": [2], "other": [3],
    }  # fmt: skip


class Table:
    """A table with its history: what each snapshot shows, and what the stream says."""

    def __init__(self, source: random.Random) -> None:
        self.random = source
        self.events: list[RowChange | Truncate] = []
        self.rows: dict[int, tuple[bytes, bytes]] = {}
        self.versions: list[dict[int, tuple[bytes, bytes]]] = [{}]
        for _ in range(20):
            self.write()

    def write(self) -> None:
        """One transaction of one change; its xid is its number."""
        number, rows, pick = len(self.events) + 1, self.rows, self.random.random
        id = self.random.randint(1, 12)
        name = b"in" if pick() < 0.5 else b"out"
        what = pick()
        if id not in rows:
            rows[id] = (name, b"n%d" % number)
            event: Any = insert(number, whole(id, *rows[id]))
        elif what < 0.2:
            del rows[id]
            event = delete(number, id)
        elif what < 0.4 and (free := set(range(1, 13)) - rows.keys()):
            other = self.random.choice(sorted(free))
            rows[other] = (name, rows.pop(id)[1])
            event = update(number, key_only(id), whole(other, name, UNCHANGED))
        elif what < 0.9:
            rows[id] = (name, rows[id][1])
            event = update(number, None, whole(id, name, UNCHANGED))
        elif what < 0.97:
            rows[id] = (name, b"n%d" % number)
            event = update(number, None, whole(id, *rows[id]))
        else:
            rows.clear()
            event = Truncate(place(number, number), WELLS, False, False)
        self.events.append(event)
        self.versions.append(dict(rows))


@pytest.mark.parametrize("seed", range(300))
def test_fills_beside_any_stream_end_in_the_table(seed: int) -> None:
    """Chunks are read under snapshots that are ahead of the stream or behind it; nothing is shown with a hole."""
    source = random.Random(seed)
    table, looks = Table(source), lens(name=b"in" if seed % 2 else None)
    kept, told = store(looks)
    seen: dict[int, Any] = {}
    kept.on_change(
        lambda change: seen.__setitem__(change.key, dict(change.new)) if change.new else seen.pop(change.key)
    )
    at = source.randint(0, 20)  # The stream begins here.

    def stream(upto: int) -> None:
        nonlocal at
        while at < upto:
            kept.receive(table.events[at])
            at += 1

    def read(low: int, high: int) -> None:
        """A chunk of the keys in between, and of those that are asked for."""
        window: Window[LineChunk] = Window(())
        kept.note = window.note
        since = at
        asked = {int(text) for (text,) in kept.holes.values()}
        kept.asked = set(kept.holes)
        for _ in range(source.randint(0, 4)):
            table.write()
        shown = source.randint(since, len(table.events))  # Whatever was handed out before is visible.
        stream(source.randint(at, len(table.events)))
        ids = {id for id in table.versions[shown] if low <= id < high or id in asked}
        lines = [line_of(cells(id, *table.versions[shown][id])) for id in sorted(ids)]
        window.take(LineChunk(Snapshot(shown + 1, shown + 1, frozenset()), looks, lines))
        stream(source.randint(max(at, shown), len(table.events)))
        assert window.chunk is not None
        rows = {slot: line for slot, line in window.chunk.rows.items() if looks.shows(line.split(b"\t"), 0) == 1}
        for change in kept.merge(rows, place(at, 0)):
            seen[change.key] = dict(change.new)
        for slot in kept.asked:
            kept.holes.pop(slot, None)
        kept.asked = set()
        kept.note = None

    for _ in range(2):
        bound = sorted({1, 13, *(source.randint(1, 13) for _ in range(3))})
        for low, high in pairwise(bound):
            read(low, high)
        while kept.holes:
            read(0, 0)
        kept.receive(Filled("public.wells"))
        for _ in range(10):
            table.write()
        stream(len(table.events))
        while kept.holes:
            read(0, 0)
        stream(len(table.events))
        while kept.holes:
            read(0, 0)
        wanted = {
            id: {"id": id, "name": name.decode(), "notes": notes.decode()}
            for id, (name, notes) in table.versions[at].items()
            if looks.sees_all or name == b"in"
        }
        assert {key: dict(row) for key, row in kept.items()} == wanted == seen
        assert all(key in wanted or effect for key, effect in told)
        kept.want("once more")


def test_rows_of_a_subject_whose_time_is_over_cannot_be_read() -> None:
    """However late the loop comes to close the store."""
    kept, _ = filled(lens())
    index = kept.index("name")
    kept.receive(insert(1, whole(1, b"in", b"n")))
    kept.feed.subject = cdc.Subject("anon", claims={"exp": 4_000_000_000})
    assert 1 in kept and len(index["in"]) == 1
    kept.feed.subject = cdc.Subject("anon", claims={"exp": 1})
    assert 1 not in kept and len(kept) == 0 and list(kept.items()) == [] and index["in"] == () and list(index) == []
