"""Versions of rows: what differs between two looks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cdc.versions import Versions, grouped


def seen(rows: dict[bytes, bytes], shape: str = "wells") -> Versions:
    return Versions(shape, grouped(((key,), version) for key, version in rows.items()))


def test_what_is_new_changed_and_gone() -> None:
    before = seen({b"1": b"9 (0,1) 700", b"2": b"9 (0,2) 700", b"3": b"9 (0,3) 701"})
    now = seen({b"1": b"9 (0,1) 700", b"2": b"9 (0,5) 702", b"4": b"9 (0,6) 702"})
    assert now.changed(before) == {(b"2",), (b"4",)}
    assert now.gone(before) == {(b"3",)}
    assert now.same(before) == {(b"1",)}


def test_looks_of_another_shape_say_nothing() -> None:
    before, now = seen({}, "wells"), seen({}, "wells with a column more")
    assert now.is_comparable(seen({}, "wells with a column more"))
    assert not now.is_comparable(before) and not now.is_comparable(None)


def test_rows_of_one_key_count_together() -> None:
    def versions(*pairs: tuple[bytes, bytes]) -> Versions:
        return Versions("wells", grouped(((key,), version) for key, version in pairs))

    before = versions((b"a", b"9 (0,1) 7"), (b"a", b"9 (0,2) 7"), (b"b", b"9 (0,3) 7"))
    assert before.rows[b"a",] == frozenset({b"9 (0,1) 7", b"9 (0,2) 7"})
    assert versions((b"a", b"9 (0,2) 7"), (b"b", b"9 (0,3) 7")).changed(before) == {(b"a",)}
    assert versions((b"a", b"9 (0,2) 7"), (b"a", b"9 (0,1) 7"), (b"b", b"9 (0,3) 7")).changed(before) == set()


@given(
    st.dictionaries(st.binary(max_size=2), st.binary(max_size=2)),
    st.dictionaries(st.binary(max_size=2), st.binary(max_size=2)),
)
def test_each_key_is_the_same_or_changed_or_gone(before: dict[bytes, bytes], now: dict[bytes, bytes]) -> None:
    old, new = seen(before), seen(now)
    assert {key for (key,) in new.changed(old)} == {key for key in now if before.get(key) != now[key]}
    assert {key for (key,) in new.gone(old)} == before.keys() - now.keys()
    assert new.changed(old) | new.same(old) == new.rows.keys()
    assert not new.changed(old) & new.same(old)
