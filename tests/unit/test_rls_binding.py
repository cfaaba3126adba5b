"""What is decided when a policy is bound to a session, what for each row, and which predicates are the same."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from cdc import Subject
from cdc.operators import Moment
from cdc.predicate import ERROR, FALSE, NULL, TRUE, UNKNOWN, Verdict, verdict
from cdc.rls import Decision, Policy, decide
from cdc.tuples import UNCHANGED
from cdc.values import Types
from tests.rls_trees import (
    FUNCTIONS,
    NAMED,
    NO,
    OK,
    ONE,
    OWN,
    SUBJECT,
    TEXT,
    UUID,
    YES,
    both,
    call,
    integer,
    internal,
    io_cast,
    op,
    policy,
    relation,
    restrictive,
    rights,
    row,
    text,
    var,
)

TYPES, MOMENT = Types(), Moment()
TWO = ONE.replace("1", "2")


def judge(*policies: Policy, subject: Subject = SUBJECT, **changed: Any) -> Decision:
    return decide(rights(*policies, **changed), relation(), TYPES, subject, MOMENT)


def case(condition: str, result: str, default: str, kind: int = 16) -> str:
    return (
        f"{{CASEEXPR :casetype {kind} :casecollid 0 :arg <> :args ({{CASEWHEN :expr {condition} :result {result} "
        f":location -1}}) :defresult {default} :location -1}}"
    )


def coalesce(*args: str, kind: int = 16) -> str:
    return f"{{COALESCEEXPR :coalescetype {kind} :coalescecollid 0 :args ({' '.join(args)}) :location -1}}"


BAD = io_cast(call(3294, text("app.bad"), YES), UUID)
NOT_MINE = op(2972, var("owner"), BAD)
SUBJECT_BAD = Subject("reader", settings={"app.bad": "secret", "request.jwt.claim.sub": ONE})
ZERO = op(521, op(528, integer(1), integer(0)), integer(0))
DIVIDED = op(521, op(528, integer(1), var("id")), integer(0))


@pytest.mark.parametrize(
    ("tree", "ok", "expected"),
    [
        (case(OK, NOT_MINE, YES), b"f", TRUE),
        (case(OK, NOT_MINE, YES), b"t", ERROR),
        (case(OK, YES, NOT_MINE), b"t", TRUE),
        (case(OK, YES, NOT_MINE), None, ERROR),
        (coalesce(OK, NOT_MINE), b"f", FALSE),
        (coalesce(OK, NOT_MINE), None, ERROR),
        (case(OK, case(NAMED, NOT_MINE, YES), YES), b"f", TRUE),
        (case(NO, NOT_MINE, OK), b"t", TRUE),
        (case(YES, OK, NOT_MINE), b"f", FALSE),
        (coalesce(YES, NOT_MINE), b"f", TRUE),
        (coalesce(OK, NOT_MINE), UNCHANGED, UNKNOWN | ERROR),
    ],
)
def test_an_arm_fails_for_the_rows_that_reach_it(tree: str, ok: Any, expected: int) -> None:
    MOMENT.problem = None
    decision = judge(policy(tree, "mine"), subject=SUBJECT_BAD)
    assert decision.denied is None
    assert decision.predicate.test(row(ok=ok)) == expected
    if expected == ERROR:
        problem = str(MOMENT.problem)
        assert problem.startswith('policy "mine": ') and "invalid input for type uuid" in problem
        assert "secret" not in problem


@pytest.mark.parametrize(
    "tree",
    [
        both("or", OK, NOT_MINE),
        both("or", YES, NOT_MINE),
        case(NOT_MINE, YES, YES),
        coalesce(NOT_MINE, OK),
        # PostgreSQL evaluates the operands of an operator while it plans
        op(2972, var("owner"), case(OK, BAD, call(20001), UUID)),
        op(2972, var("owner"), coalesce(var("owner"), BAD, kind=UUID)),
    ],
)
def test_elsewhere_it_denies_the_subject(tree: str) -> None:
    decision = judge(policy(tree), subject=SUBJECT_BAD)
    assert decision.denied is not None and "invalid input for type uuid" in decision.denied
    assert decision.predicate.test(row(ok=b"t")) == FALSE


@pytest.mark.parametrize("tree", [case(OK, ZERO, YES), case(NO, ZERO, YES), coalesce(OK, ZERO), both("or", YES, ZERO)])
def test_a_constant_that_fails_denies_everybody_wherever_it_stands(tree: str) -> None:
    decision = judge(policy(tree))
    assert decision.denied is not None and "division by zero" in decision.denied
    assert decision.predicate.test(row(ok=b"f")) == FALSE


def test_no_right_to_execute_denies_wherever_the_function_stands() -> None:
    functions = FUNCTIONS | {870: replace(FUNCTIONS[870], executable=False)}
    lower = op(98, call(870, var("name"), result=TEXT), text("alpha"))
    for tree in (lower, case(OK, lower, YES), case(NO, lower, YES), coalesce(YES, lower)):
        decision = judge(policy(tree), functions=functions)
        assert decision.denied is not None
        assert decision.denied.endswith("role reader has no EXECUTE right on pg_catalog.lower(text)")
        assert judge(policy(tree)).denied is None


@pytest.mark.parametrize(
    ("tree", "cells", "expected"),
    [
        (DIVIDED, {"id": b"0"}, ERROR),
        (DIVIDED, {"id": b"1"}, TRUE),
        (DIVIDED, {"id": UNCHANGED}, UNKNOWN | ERROR),
        (both("or", DIVIDED, OK), {"id": b"0"}, ERROR),
        (both("or", OK, DIVIDED), {"id": b"0"}, TRUE),
        (both("or", DIVIDED, YES), {"id": b"0"}, ERROR),
        (both("not", both("and", DIVIDED, NO)), {"id": b"0"}, ERROR),
        (both("not", both("and", NO, DIVIDED)), {"id": b"0"}, TRUE),
        (both("or", DIVIDED, OK), {"id": UNCHANGED}, TRUE | ERROR),
        (both("or", op(521, var("id"), integer(0)), OK), {"id": UNCHANGED}, TRUE),
        (both("and", DIVIDED, OK), {"id": UNCHANGED, "ok": b"f"}, FALSE | ERROR),
        (both("not", OK), {"ok": UNCHANGED}, UNKNOWN),
        (case(DIVIDED, YES, NO), {"id": b"0"}, ERROR),
        (case(OK, YES, NO), {"ok": UNCHANGED}, UNKNOWN),
        (case(OK, YES, NO), {"ok": None}, FALSE),
        (coalesce(OK, YES), {"ok": None}, TRUE),
    ],
)
def test_errors_and_cells_that_were_not_sent(tree: str, cells: dict[str, Any], expected: int) -> None:
    outcome = judge(policy(tree)).predicate.test(row(**cells))
    assert outcome == expected
    assert (verdict(outcome) is Verdict.YES) == (expected == TRUE)


def test_the_error_of_a_restrictive_policy_hides_the_row() -> None:
    decision = judge(policy(YES), restrictive(DIVIDED))
    assert [decision.predicate.test(row(id=cell)) for cell in (b"0", b"1")] == [ERROR, TRUE]


def test_equal_sessions_have_equal_keys() -> None:
    longer = op(
        521, call(1317, var("name"), result=23), call(1317, call(3294, text("app.x"), YES, result=TEXT), result=23)
    )
    for tree in (OWN, both("or", OWN, OK), longer, both("not", longer), case(OK, OWN, longer), coalesce(OK, longer)):
        subjects = [
            Subject("reader", settings={"request.jwt.claim.sub": sub, "app.x": x})
            for sub, x in ((ONE, "a"), (ONE, "a"), (TWO, "a"), (TWO, "abc"))
        ]
        keys = [judge(policy(tree), subject=subject).key for subject in subjects]
        assert keys[0] is not None and keys[0] == keys[1] and hash(keys[0]) == hash(keys[1])
        assert keys[0] != keys[3]
        for one, two in pairwise(subjects):
            first, second = (judge(policy(tree), subject=subject) for subject in (one, two))
            if first.key == second.key:
                cells = [row(owner=owner.encode(), name=name) for owner in (ONE, TWO) for name in (b"ab", b"", b"abcd")]
                assert [first.predicate.test(each) for each in cells] == [second.predicate.test(each) for each in cells]


def test_roles_with_the_same_policies_share_keys_and_others_do_not() -> None:
    reader = judge(policy(both("not", DIVIDED)))
    other = decide(rights(policy(both("not", DIVIDED)), role="other"), relation(), TYPES, Subject("other"), MOMENT)
    assert reader.key is not None and reader.key == other.key
    replaced = FUNCTIONS | {50528: replace(FUNCTIONS[50528], name="int4mul")}
    assert judge(policy(both("not", DIVIDED)), functions=replaced).key != reader.key
    assert judge(policy(both("not", op(521, var("id"), integer(0))))).key != reader.key


def test_a_key_tells_values_apart_that_are_equal() -> None:
    """1.0 and 1.00 are equal numerics and different texts."""
    setting = io_cast(call(3294, text("app.n"), YES, result=TEXT), 1700)
    tree = op(98, io_cast(setting, TEXT), var("name"))
    keys = set()
    for number in ("1.0", "1.00"):
        decision = judge(policy(tree), subject=Subject("reader", settings={"app.n": number}))
        assert decision.predicate.test(row(name=number.encode())) == TRUE
        keys.add(decision.key)
    assert len(keys) == 2


def test_the_time_is_that_of_the_moment() -> None:
    functions = FUNCTIONS | {
        1299: internal("now", "", 1184),
        51322: internal("timestamptz_lt", "timestamp with time zone, timestamp with time zone", 16),
    }
    stamp = io_cast(text("2020-01-01 00:00:00+00"), 1184)
    tree = op(1322, stamp, call(1299, result=1184))
    decision = judge(policy(tree), functions=functions, operator_functions={1322: 51322}, zone="UTC")
    assert decision.predicate.timed and not decision.predicate.columns
    outcomes = []
    for days in (7000, 8000):
        MOMENT.microseconds = days * 86_400_000_000
        outcomes.append(decision.predicate.test(row()))
    assert outcomes == [FALSE, TRUE]


def test_a_deep_tree_is_compiled_and_evaluated() -> None:
    tree = OK
    for _ in range(90):
        tree = both("not", tree)
    assert judge(policy(tree)).predicate.test(row()) == TRUE
    for _ in range(8):
        tree = both("not", tree)
    assert "nested more than 200 levels deep" in str(judge(policy(both("not", both("not", tree)))).denied)


def test_arithmetic_as_deep_as_a_tree_may_be() -> None:
    sums = {"id": var("id"), "one": integer(1)}
    for _ in range(95):
        sums = {name: op(551, tree, integer(1)) for name, tree in sums.items()}
    decision = judge(policy(op(96, sums["id"], sums["one"])))
    assert decision.denied is None
    assert [decision.predicate.test(row(id=cell)) for cell in (b"1", b"2", None)] == [TRUE, FALSE, NULL]


def test_a_case_of_a_case_of_a_case_does_not_explode() -> None:
    def simple(operand: str) -> str:
        arms = " ".join(
            f"{{CASEWHEN :expr {op(96, '{CASETESTEXPR :typeId 23}', integer(n))} :result {integer(n)} :location -1}}"
            for n in range(5)
        )
        end = f":defresult {integer(9)} :location -1}}"
        return f"{{CASEEXPR :casetype 23 :casecollid 0 :arg {operand} :args ({arms}) {end}"

    tree = var("id")
    for _ in range(4):
        tree = simple(tree)
    assert judge(policy(op(96, tree, integer(1)))).predicate.test(row()) == TRUE
    decision = judge(policy(op(96, simple(tree), integer(1))))
    assert decision.unsupported[0].construct == "CASE as the operand of CASE, more than 4 deep"


def test_what_no_session_changes_is_one_predicate_for_all() -> None:
    judged = rights(policy(both("or", op(521, var("id"), integer(3)), both("not", DIVIDED))))
    subjects = [Subject("reader", settings={"request.jwt.claim.sub": sub}) for sub in (ONE, TWO)]
    one, two = (decide(judged, relation(), TYPES, subject, MOMENT).predicate for subject in subjects)
    assert one is two


def test_bound_policies_say_what_they_are() -> None:
    decision = judge(policy(OWN, "a"), policy("{NEWNODE :x y}", "b"), restrictive(both("not", NAMED), "c"))
    told = {bound.policy.name: (bound.predicate is None, bound.reason, bound.index) for bound in decision.policies}
    assert told == {"a": (False, None, "owner"), "b": (True, "the construct NEWNODE", None), "c": (False, None, None)}
    failed = judge(policy(NOT_MINE, "a"), policy(OK, "b"), subject=SUBJECT_BAD)
    assert [bound.predicate is None for bound in failed.policies] == [True, False]
    assert failed.policies[0].reason is not None and "invalid input" in failed.policies[0].reason
    assert NULL not in {bound.predicate.test(row()) for bound in failed.policies if bound.predicate is not None}
