"""Operators and functions of json and jsonb, held against the server."""

from __future__ import annotations

import psycopg
import pytest

from cdc.operators import json_functions, json_texts
from tests.grids import Grid

DOCUMENTS = [
    "null",
    "true",
    "false",
    "0",
    "-0",
    "1",
    "1.0",
    "1.50",
    "1e3",
    "1.5e-7",
    "-12.500e1",
    "32768",
    "2147483648",
    "9223372036854775807.5",
    "12345678901234567890123.5",
    '"a"',
    '""',
    '"1"',
    '"é😀"',
    '"a\\"b\\\\ \\n\\u0001\\u00e9\\ud83d\\ude00\x7f/\\/"',
    "[]",
    "{}",
    "[1]",
    "[1.0, 2]",
    "[2, 1]",
    "[1, 1]",
    "[true]",
    "[null]",
    '["a", "b", "1"]',
    "[[]]",
    "[[1]]",
    "[[1, 2], 3]",
    "[{}]",
    '[{"a": 1}, {"a": 2, "b": 1}]',
    '{"a": 1}',
    '{"a": null}',
    '{"a": 1.0, "b": true}',
    '{"b": 2, "a": [1, {"c": "d"}], "aa": {"a": {"a": 5}}}',
    '{"a": {"a": [10, 20, 30]}}',
    '{"a": 1, "a": 2}',
    '{"é": "x", "zz": 1, "b": 2, "": 3, "1": 4, "0": 5}',
    '{"roles": ["admin", "user"], "active": "true"}',
]
JSONS = [
    *DOCUMENTS,
    ' { "a" :  [ 1 , 2.50,"x"\n] , "b":{"a":null} } ',
    "\n[ 1,\t[ 2 , 3 ] ]",
    '{"a": "\\u0000"}',
    '{"a": "\\ud800"}',
    '{"a": {"b": 1}, "a": {"c": 2}}',
    '{"a": {"a": 1}, "a": {"a": 2}}',
]
POOLS = {
    "jsonb": DOCUMENTS,
    "json": JSONS,
    "text": ["", "a", "b", "1", "0", "é", "roles", "zz", "admin", "A"],
    "text[]": [
        *("{}", "{a}", "{a,b}", "{a,a}", "{0}", "{1}", "{-1}", "{a,0}", "{a,1,c}", "{NULL}", "{a,NULL}", "{aa,a,a}"),
        *("{+1}", '{" 1"}', '{"1 "}', "{01}", "{2147483648}", "{a,a,-1}", '{""}', "{roles,admin}", "{0,a}"),
        *("{{a},{b}}", "{0,0}", "{1,-2}"),
    ],
    "integer": ["0", "1", "2", "-1", "-2", "-3", "5", "2147483647", "-2147483648"],
}


@pytest.fixture
def connection(database: str):
    with psycopg.connect(database, autocommit=True) as made:
        yield made


def test_jsonb_is_the_servers(connection: psycopg.Connection) -> None:
    Grid(connection, POOLS, limit=2000).check(json_functions.TABLE)


def test_json_is_the_servers(connection: psycopg.Connection) -> None:
    Grid(connection, POOLS, limit=2000).check(json_texts.TABLE)
