"""What the compiler relies on of a server's version: the numbers in node trees, tags and signatures of functions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cdc.operators.tables import TABLE
from cdc.rls.branches import _LESS
from cdc.rls.nodes import Node, read
from cdc.rls.session import _SPECIAL, EXPR_SUBLINK
from cdc.rls.tags import HANDLERS
from tests.rls_table import Table, secured_table


@pytest.fixture
def table(database: str) -> Iterator[Table]:
    with secured_table(database) as made:
        yield made


def tree(table: Table, expression: str) -> Node:
    table.policies([f"USING ({expression})"])
    return read(str(table.rights("postgres").policies[0].node_text))


def test_the_kinds_of_sublinks(table: Table) -> None:
    numbers = {
        "EXISTS (SELECT 1)": 0,
        "id = ALL (SELECT 1)": 1,
        "id = ANY (SELECT 1)": 2,
        "(id, id) = (SELECT 1, 2)": 3,
        "(SELECT true)": EXPR_SUBLINK,
    }
    for expression, number in numbers.items():
        assert tree(table, expression).number("subLinkType") == number, expression


def test_the_kinds_of_null_and_boolean_tests(table: Table) -> None:
    assert [tree(table, f"id IS {word}NULL").number("nulltesttype") for word in ("", "NOT ")] == [0, 1]
    words = ("TRUE", "NOT TRUE", "FALSE", "NOT FALSE", "UNKNOWN", "NOT UNKNOWN")
    numbers = [tree(table, f"ok IS {word}").number("booltesttype") for word in words]
    assert numbers == [0, 1, 2, 3, 4, 5]


def test_the_numbers_of_value_functions(table: Table) -> None:
    numbers = {
        "current_date": 0,
        "current_time": 1,
        "current_time(3)": 2,
        "current_timestamp": 3,
        "current_timestamp(3)": 4,
        "localtime": 5,
        "localtime(3)": 6,
        "localtimestamp": 7,
        "localtimestamp(3)": 8,
        "current_role": 9,
        "current_user": 10,
        "user": 11,
        "session_user": 12,
        "current_catalog": 13,
        "current_schema": 14,
    }
    for expression, number in numbers.items():
        node = tree(table, f"{expression} IS NULL").node("arg")
        assert (node.tag, node.number("op")) == ("SQLVALUEFUNCTION", number), expression


def test_greatest_and_least(table: Table) -> None:
    for number, word in enumerate(("greatest", "least")):
        node = tree(table, f"{word}(id, 3) IS NULL").node("arg")
        assert (node.tag in ("MINMAX", "MINMAXEXPR"), node.number("op")) == (True, number)


@pytest.mark.parametrize(
    "expression",
    [
        "id = 1",
        "id IN (1, 2)",
        "id = ANY ('{1,2}')",
        "ok AND NOT ok",
        "ok IS TRUE",
        "ok IS NULL",
        "id IS DISTINCT FROM 1",
        "nullif(id, 1) = 1",
        "coalesce(ok, true)",
        "CASE WHEN ok THEN true ELSE false END",
        "CASE id WHEN 1 THEN true ELSE ok END",
        "greatest(id, 1) = 1",
        "id = ANY (ARRAY[id, 1])",
        "ARRAY[[id]] = ARRAY[[1]]",
        "name = tag",
        "name = id::text",
        "ARRAY[id]::bigint[] = ARRAY[1::bigint]",
        "name COLLATE \"C\" = 'a'",
        "current_user = name",
        "(SELECT true)",
        "lower(name) = 'a'",
    ],
)
def test_every_tag_has_a_handler(table: Table, expression: str) -> None:
    def tags(node: object) -> set[str]:
        if isinstance(node, Node):
            return {node.tag}.union(*(tags(value) for value in node.fields.values()))
        return set().union(*(tags(item) for item in node)) if isinstance(node, tuple) else set()

    inner = {"WHEN", "CASEWHEN", "QUERY", "FROMEXPR", "TARGETENTRY"}
    assert tags(tree(table, expression)) - inner <= HANDLERS.keys()


def test_the_signatures_exist(table: Table) -> None:
    """What is found by signature is found on this server; else a policy that uses it would be refused for nothing."""
    rows = table.connection.execute(
        "SELECT proname || '(' || pg_get_function_identity_arguments(oid) || ')' FROM pg_proc "
        "WHERE pronamespace = 'pg_catalog'::regnamespace"
    ).fetchall()
    assert {*_LESS.values(), *_SPECIAL} <= {signature for (signature,) in rows}
    known = {signature for (signature,) in rows}
    assert {*TABLE} & known
