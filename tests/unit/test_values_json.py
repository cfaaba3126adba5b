"""Values become JSON: every kind has a form, and nothing crashes."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import StrEnum
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any
from uuid import UUID

import pytest
from psycopg.types.multirange import Multirange
from psycopg.types.range import Range

from cdc.jsonable import jsonable
from cdc.values import BoundedArray, Interval


class Colour(StrEnum):
    RED = "red"


class Text(str):
    pass


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        *((value, value) for value in (None, True, 7, "x", 1.5)),
        *((float(text), text) for text in ("NaN", "Infinity", "-Infinity")),
        (Decimal("1.50"), "1.50"),
        (Decimal("1E+5"), "100000"),
        (Decimal("1E-9"), "0.000000001"),
        (Decimal("NaN"), "NaN"),
        (Decimal("-Infinity"), "-Infinity"),
        (datetime(2024, 1, 2, 3, 4, 5, 600000), "2024-01-02T03:04:05.600000"),
        (datetime(2024, 1, 2, 3, 4, tzinfo=timezone(timedelta(hours=5))), "2024-01-01T22:04:00+00:00"),
        (datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=5))), "0001-01-01T00:00:00+05:00"),
        (date(2024, 1, 2), "2024-01-02"),
        (time(1, 2, 3), "01:02:03"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (b"\x00\xff", "\\x00ff"),
        ([1, [Decimal("1.0")]], [1, ["1.0"]]),
        ((1, b""), [1, "\\x"]),
        ({"a": {"b": float("nan")}}, {"a": {"b": "NaN"}}),
        ({1: date(2024, 1, 2)}, {"1": "2024-01-02"}),
        (Colour.RED, "red"),
        (Text("x"), "x"),
        (timedelta(days=1), "1 day, 0:00:00"),
        (time(1, 2, tzinfo=UTC), "01:02:00+00:00"),
        (Interval(14, 3, 14_706_700_000), "1 year 2 mons 3 days 04:05:06.7"),
        (ip_address("::1"), "::1"),
        (ip_interface("10.0.0.1/8"), "10.0.0.1/8"),
        (ip_network("10.0.0.0/8"), "10.0.0.0/8"),
        (BoundedArray([1, Decimal("2.0")], (0,)), [1, "2.0"]),
        (Range(1, 5), "[1,5)"),
        (Range(None, Decimal("2.0"), "(]"), "(,2.0]"),
        (Range(empty=True), "empty"),
        (Range(datetime(2024, 1, 2, 3, 4), "infinity"), "[2024-01-02T03:04:00,infinity)"),
        (Range("", 'a "b",\\'), '["","a ""b"",\\\\")'),
        (Range([1, 2], {"a": None}), '["[1, 2]","{""a"": null}")'),
        (Multirange([Range(1, 2), Range(5, None)]), "{[1,2),[5,)}"),
        (Multirange(), "{}"),
        ({"a": Range(1, 2), "b": [Interval(1)]}, {"a": "[1,2)", "b": ["1 mon"]}),
        (Decimal("1e999999999"), "1E+999999999"),
        (Decimal("1e131071"), "1" + "0" * 131071),
    ],
)
def test_jsonable(value: object, plain: object) -> None:
    assert jsonable(value) == plain


class Silent:
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize("value", [Silent(), [Silent()], {"a": (Silent(),)}, {Silent(): 1}])
def test_a_class_without_text_is_named(value: object) -> None:
    assert "<Silent>" in json.dumps(jsonable(value))


@pytest.mark.parametrize("kind", [list, tuple, dict])
def test_any_depth_becomes_json(kind: type) -> None:
    value: Any = 1
    for _ in range(100_000):
        value = {"a": value} if kind is dict else kind([value])
    assert json.loads(json.dumps(jsonable(value)))


def test_what_holds_itself_becomes_json() -> None:
    value: list[object] = [1]
    value.append(value)
    assert json.loads(json.dumps(jsonable(value)))[0] == 1


def test_order_of_names_is_kept() -> None:
    value = {"b": [1], 2: "x", "a": {"z": 1, "y": []}}
    assert json.dumps(jsonable(value)) == '{"b": [1], "2": "x", "a": {"z": 1, "y": []}}'


def test_an_int_that_json_refuses_is_text() -> None:
    assert jsonable([10**5000, -(10**4000)]) == ["1" + "0" * 5000, -(10**4000)]
