"""Names of tables and patterns of names, as users write them."""

from __future__ import annotations

import pytest

import cdc
from cdc.pattern import Pattern, table_name


@pytest.mark.parametrize(
    ("text", "yes", "no"),
    [
        ("wells", ["public.wells"], ["other.wells", "public.well", "public.wells2"]),
        ("public.*", ["public.wells", "public.a b"], ["other.wells", "publicx.wells"]),
        ("*", ["public.wells", "other.wells"], ["cdc.slots"]),
        ("*.*", ["public.wells", "other.wells"], ["cdc.slots"]),
        ("sales_*", ["public.sales_a", "public.sales_"], ["other.sales_a", "public.sales", "public.Sales_a"]),
        ("*.audit", ["public.audit", "other.audit"], ["public.audits"]),
        ("t?", ["public.t1"], ["public.t12", "public.t"]),
        ("t[12]", ["public.t1", "public.t2"], ["public.t3"]),
        ('"t*"', ["public.t*"], ["public.tt", "public.t"]),
        ('"a.b".*', ["a.b.c"], ["a.c"]),
        ('other."x[1]"', ["other.x[1]"], ["other.x1"]),
        ('*."x*"', ["other.x*", "public.x*"], ["other.xy"]),
        ("public.a\n*", ["public.a\nb"], ["public.ab"]),
    ],
)
def test_what_a_pattern_means(text: str, yes: list[str], no: list[str]) -> None:
    pattern = Pattern.of(text)
    assert [each for each in yes if not pattern.matches(*each.rsplit(".", 1))] == []
    assert [each for each in no if pattern.matches(*each.rsplit(".", 1))] == []


@pytest.mark.parametrize("text", ["wells", "other.wells", '"My.Table"', 'a."b*"', '"a""b".c'])
def test_a_name_is_no_pattern(text: str) -> None:
    assert Pattern.of(text).named == table_name(text)


@pytest.mark.parametrize("text", ["", ".", "a.", ".a", "a.b.c", '"', 'a"b', None, 5, ["wells"]])
def test_what_is_neither(text: str) -> None:
    with pytest.raises(cdc.SubscriptionError, match="is not the name of a table"):
        Pattern.of(text)


def test_only_one_pattern_may_be_nothing() -> None:
    assert [text for text in ("*", "*.*", "public.*", '"*"') if Pattern.of(text).is_everything] == ["*"]
