"""One policy, compiled from a hand-made node tree: three-valued, folded, and refused by the construct's name."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc import Subject, predicate
from cdc.predicate import FALSE, NULL, TRUE, UNKNOWN
from cdc.rls import ColumnRights, Decision, Policy, decide, review
from cdc.rls.conditions import all_of, any_of
from cdc.tuples import UNCHANGED
from cdc.values import Types
from tests.rls_trees import (
    CHAR,
    COLUMNS,
    FORBIDDEN,
    NAMED,
    NO,
    NOBODY,
    NULLS,
    ODD,
    OK,
    ONE,
    OWN,
    SUBJECT,
    TEXT,
    UID,
    YES,
    both,
    call,
    const,
    integer,
    op,
    policy,
    relabel,
    relation,
    restrictive,
    rights,
    row,
    subselect,
    text,
    var,
    varlena,
)


def judge(*policies: Policy, subject: Subject = SUBJECT, **changed: Any) -> Decision:
    return decide(rights(*policies, **changed), relation(), Types(), subject)


def outcome(tree: str, subject: Subject = SUBJECT, **cells: Any) -> int:
    decision = judge(policy(tree), subject=subject)
    assert not decision.unsupported, decision
    return decision.predicate.test(row(**cells))


@pytest.mark.parametrize(
    ("tree", "cells", "expected"),
    [
        (YES, {}, TRUE),
        (NO, {}, FALSE),
        (NULLS, {}, NULL),
        (OK, {}, TRUE),
        (OK, {"ok": b"f"}, FALSE),
        (OK, {"ok": None}, NULL),
        (OK, {"ok": UNCHANGED}, UNKNOWN),
        (op(91, NO, OK), {"ok": b"f"}, TRUE),
        (OWN, {}, TRUE),
        (OWN, {"owner": b"22222222-2222-4222-8222-222222222222"}, FALSE),
        (OWN, {"owner": None}, NULL),
        (OWN, {"owner": UNCHANGED}, UNKNOWN),
        (op(2972, call(UID), var("owner")), {}, TRUE),
        (op(2972, subselect(call(UID)), var("owner")), {}, TRUE),
        (subselect(subselect(YES)), {}, TRUE),
        (op(96, var("id"), integer(None)), {}, NULL),
        (op(96, var("id"), integer(None)), {"id": UNCHANGED}, NULL),
        (op(96, integer(1), integer(1)), {}, TRUE),
        (op(96, integer(1), integer(2)), {}, FALSE),
        (op(96, integer(1), integer(None)), {}, NULL),
        (op(98, relabel(var("tag"), TEXT), text("x")), {}, TRUE),
        (op(1054, var("code"), const(CHAR, varlena(b"ab"), -1)), {}, TRUE),
        (op(1054, relabel(var("name"), CHAR), const(CHAR, varlena(b"ab "), -1)), {"name": b"ab    "}, TRUE),
        (both("and", OK, OWN), {"ok": None}, NULL),
        (both("and", OK, OWN), {"ok": None, "owner": b"x"}, FALSE),
        (both("and", OK, OWN), {"ok": UNCHANGED, "owner": b"x"}, FALSE),
        (both("and", OK, OWN), {"ok": UNCHANGED}, UNKNOWN),
        (both("and", OK, OWN), {"ok": UNCHANGED, "owner": None}, NULL | FALSE),
        (both("or", OK, OWN), {"ok": None}, TRUE),
        (both("or", OK, OWN), {"ok": UNCHANGED}, TRUE),
        (both("or", OK, OWN), {"ok": None, "owner": b"x"}, NULL),
        (both("or", OK, OWN), {"ok": UNCHANGED, "owner": b"x"}, UNKNOWN),
        (both("or", OK, OWN), {"ok": UNCHANGED, "owner": None}, TRUE | NULL),
        (both("or", OK, NULLS), {"ok": b"f"}, NULL),
        (both("and", OK, NULLS), {"ok": b"f"}, FALSE),
        (both("or", both("and", OK, NAMED), op(96, var("id"), integer(7))), {"name": b"beta", "id": b"7"}, TRUE),
    ],
)
def test_outcomes(tree: str, cells: dict[str, Any], expected: int) -> None:
    assert outcome(tree, **cells) == expected


def test_a_subject_without_the_setting_sees_null() -> None:
    assert outcome(OWN, NOBODY) == NULL
    assert outcome(both("or", OWN, OK), NOBODY) == TRUE


@pytest.mark.parametrize(
    ("tree", "construct"),
    [
        (FORBIDDEN, "operator <=>"),
        (op(2347, var("id"), var("owner")), "operator with OID 2347"),
        (op(98, var("name"), text("a"), collation=777), "a comparison of texts under a nondeterministic collation"),
        (op(96, var("id", level=1), integer(1)), "an expression of the column id"),
        (op(96, var("id", table=2), integer(1)), "an expression of the column id"),
        (op(96, var("id", kind=20), integer(1)), "column id has another type in the stream than in the policy"),
        (op(98, relabel(var("id"), TEXT), text("1")), "cast of the column id to text"),
        (op(98, relabel(var("code"), TEXT), text("1")), "cast of the column code to text"),
        (op(607, relabel(var("id"), 26), integer(1)), "integer where oid is expected by ="),
        (op(2972, var("owner"), call(ODD)), "function auth.odd() (its body is not one that cdc knows)"),
        (op(2972, var("owner"), call(99999)), "function with OID 99999"),
        (op(2972, var("owner"), call(UID, text("x"))), "function auth.uid()"),
        (op(98, var("name"), call(2077, var("tag"))), "current_setting of a name that is not a constant"),
        (op(98, var("name"), call(2077, const(TEXT, None, -1))), "current_setting of NULL"),
        (op(98, var("name"), call(3294, text("a.b"), NULLS)), "current_setting of NULL"),
        (op(98, var("name"), call(2077, text("role"))), "current_setting('role'), a setting of the server"),
        (op(98, var("name"), integer(1)), "integer where text is expected by ="),
        (op(96, var("id"), const(3500, b"\0" * 8, 4)), "a constant of type type 3500"),
        (op(2972, var("owner"), subselect(call(UID), limitCount=integer(1))), "sub-query"),
        (op(2972, var("owner"), subselect(call(UID), rtable="({RTE :rtekind 8})")), "sub-query"),
        (op(2972, var("owner"), subselect(call(UID), jointree=f"{{FROMEXPR :fromlist <> :quals {NO}}}")), "sub-query"),
        (op(2972, var("owner"), subselect(call(UID), jointree="<>")), "sub-query"),
        (op(2972, var("owner"), subselect(call(UID), hasAggs="true")), "sub-query"),
        (op(2972, var("owner"), subselect(call(UID), somethingNew="true")), "sub-query"),
        (op(2972, var("owner"), subselect(call(UID), commandType="2")), "sub-query"),
        (op(2972, var("owner"), subselect(call(UID)).replace("resjunk false", "resjunk true")), "sub-query"),
        (subselect(YES).replace("subLinkType 4", "subLinkType 0"), "sub-query"),
        (call(UID), "function auth.uid()"),
        (text("x"), "a constant of type text"),
        ("{NEWNODE :x y}", "the construct NEWNODE"),
        ("{OPEXPR :opno 96 :args <>}", "operator = with "),
        ("{OPEXPR :opno x :args <>}", "a node tree that cdc cannot read (OPEXPR has no number opno)"),
        ("{BOOLEXPR :boolop <> :args <>}", "a node tree that cdc cannot read (BOOLEXPR has no word boolop)"),
        (
            both("and", YES, "x"),
            "a node tree that cdc cannot read (BOOLEXPR has a list args of something else than nodes)",
        ),
    ],
)
def test_unsupported_constructs_are_named(tree: str, construct: str) -> None:
    assert review(rights(policy(tree)), relation(), Types())[0][1] == construct
    decision = judge(policy(tree))
    assert [found.construct for found in decision.unsupported] == [construct]
    assert decision.predicate.test(row()) == FALSE


def test_a_column_that_is_not_sent() -> None:
    short = relation([column for column in COLUMNS if column[0] != "owner"])
    decision = decide(rights(policy(OWN)), short, Types(), SUBJECT)
    assert decision.unsupported[0].construct == "column owner is not in the publication"


def test_a_domain_is_compared_as_its_base() -> None:
    columns = {**rights().columns, 3: ColumnRights("name", 9000, TEXT, True)}
    table = relation([(name, 9000 if name == "name" else oid) for name, oid in COLUMNS])
    tree = op(98, relabel(var("name", kind=9000), TEXT), text("alpha"))
    decision = decide(rights(policy(tree), columns=columns), table, Types(), SUBJECT)
    assert decision.predicate.test(row()) == TRUE
    other = decide(rights(policy(tree)), table, Types(), SUBJECT)
    assert other.unsupported


def test_predicates_read_only_the_columns_that_matter() -> None:
    assert judge(policy(YES), policy(OWN)).predicate.columns == frozenset()
    assert judge(policy(OWN)).predicate.columns == {1}
    assert judge(policy(both("or", NO, OWN))).predicate.columns == {1}
    assert judge(policy(both("and", NO, OWN))).predicate.columns == frozenset()
    assert judge(policy(both("or", OK, OWN)), restrictive(NAMED)).predicate.columns == {1, 2, 3}


def test_a_thousand_conditions_are_no_thousand_calls() -> None:
    tree = both("or", *(op(96, var("id"), integer(number)) for number in range(2000)))
    predicate = judge(policy(tree)).predicate
    assert predicate.test(row(id=b"1999")) == TRUE
    assert predicate.test(row(id=b"2000")) == FALSE
    assert predicate.test(row(id=UNCHANGED)) == UNKNOWN


@given(st.lists(st.sampled_from([YES, NO, NULLS, OK, OWN, NAMED]), min_size=1, max_size=6), st.booleans(), st.data())
def test_folding_changes_no_outcome(trees: list[str], is_and: bool, data: st.DataObject) -> None:
    parts = [judge(policy(tree)).predicate for tree in trees]
    cells = [b"t", b"f", None, UNCHANGED, b"alpha", ONE.encode()]
    drawn = row(**{name: data.draw(st.sampled_from(cells)) for name in ("owner", "name", "ok")})
    folded = (all_of if is_and else any_of)(parts)
    plain = (predicate.every if is_and else predicate.some)(parts)
    assert folded.test(drawn) == plain.test(drawn)


@given(st.sampled_from([OWN, both("and", OK, NAMED), op(2972, subselect(call(UID)), var("owner"))]), st.data())
def test_a_damaged_tree_never_shows_more_than_an_error(tree: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(tree)))
    end = data.draw(st.integers(start, min(len(tree), start + 12)))
    damaged = tree[:start] + data.draw(st.text("{}()<>:0 xv", max_size=4)) + tree[end:]
    decision = judge(policy(damaged))
    if decision.unsupported:
        assert decision.predicate.test(row()) == FALSE and decision.denied
