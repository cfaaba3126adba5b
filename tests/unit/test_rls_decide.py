"""Policies, rights and a subject together: grants first, permissive and restrictive, and a reason for every denial."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cdc import Subject
from cdc.predicate import FALSE, TRUE
from cdc.rls import Decision, Policy, decide
from cdc.rls import compile as compiling
from cdc.rls.constructs import Scope
from cdc.values import Types
from tests.rls_trees import (
    COLUMNS,
    FORBIDDEN,
    FUNCTIONS,
    JSONB,
    JWT,
    NAMED,
    NO,
    NULLS,
    OK,
    ONE,
    OWN,
    SUBJECT,
    UID,
    UUID,
    YES,
    both,
    call,
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


def judge(*policies: Policy, subject: Subject = SUBJECT, **changed: Any) -> Decision:
    return decide(rights(*policies, **changed), relation(), Types(), subject)


ALPHA, BETA = row(name=b"alpha"), row(name=b"beta")


@pytest.mark.parametrize(
    ("policies", "alpha", "beta"),
    [
        ([policy(NAMED)], True, False),
        ([policy(NAMED), policy(YES)], True, True),
        ([policy(NULLS), policy(NAMED)], True, False),
        ([policy(YES), restrictive(NAMED)], True, False),
        ([policy(YES), restrictive(NAMED), restrictive(NO)], False, False),
        ([policy(YES), restrictive(NULLS)], False, False),
        ([policy(NAMED), policy(YES, applies=False)], True, False),
        ([policy(YES), policy(NO, permissive=False, applies=False)], True, True),
        ([policy(NAMED), policy(None)], True, False),
        ([policy(YES), policy(None, permissive=False)], True, True),
        ([policy(FORBIDDEN), policy(NAMED)], True, False),
        ([policy(YES), restrictive(FORBIDDEN)], False, False),
        ([policy(YES), restrictive("{junk")], False, False),
    ],
)
def test_policies_together(policies: list[Policy], alpha: bool, beta: bool) -> None:
    test = judge(*policies).predicate.test
    assert (test(ALPHA) == TRUE, test(BETA) == TRUE) == (alpha, beta)


@pytest.mark.parametrize(
    ("policies", "denied", "unsupported"),
    [
        ([], "no policy lets role reader read", []),
        ([policy(YES, applies=False)], "no policy lets role reader read", []),
        ([policy(None)], "no policy lets role reader read", []),
        ([restrictive(YES)], "no policy lets role reader read", []),
        ([restrictive(FORBIDDEN)], "no policy lets role reader read", []),
        (
            [policy(FORBIDDEN, "odd")],
            'no policy that cdc can decide lets role reader read: policy "odd": operator <=>',
            ["odd"],
        ),
        ([policy(FORBIDDEN, "odd"), policy(YES)], None, ["odd"]),
        ([policy(FORBIDDEN, "odd", applies=False), policy(YES)], None, []),
        (
            [policy(YES), restrictive(FORBIDDEN, "odd")],
            'restrictive policy "odd": operator <=> is not supported',
            ["odd"],
        ),
        ([policy("{", "odd")], "a node tree that cdc cannot read", ["odd"]),
        ([policy(FORBIDDEN, "a"), restrictive(FORBIDDEN, "b")], "restrictive", ["a", "b"]),
    ],
)
def test_denials_have_a_reason(policies: list[Policy], denied: str | None, unsupported: list[str]) -> None:
    decision = judge(*policies)
    assert denied is None if decision.denied is None else denied is not None and denied in decision.denied
    assert [found.policy for found in decision.unsupported] == unsupported
    if denied is not None:
        assert decision.predicate.test(row()) == FALSE and not decision.predicate.columns


@pytest.mark.parametrize(
    "attributes", [{"row_security": False}, {"superuser": True}, {"bypass_rls": True}, {"owns": True}, {"forced": True}]
)
def test_who_is_exempt(attributes: dict[str, bool]) -> None:
    decision = judge(policy(NO), **attributes)
    assert decision.exempt == ("forced" not in attributes)
    assert decision.predicate.test(row()) == (FALSE if "forced" in attributes else TRUE)
    forced = judge(policy(NO), **(attributes | {"forced": True}))
    assert forced.exempt == (not attributes.keys() & {"owns", "forced"})


def test_grants_come_before_everything() -> None:
    def denied(**changed: Any) -> str | None:
        return judge(policy(YES), superuser=True, **changed).denied

    columns = rights().columns
    none = {at: replace(column, selectable=False) for at, column in columns.items()}
    some = {at: replace(column, selectable=column.name != "id") for at, column in columns.items()}
    assert denied(schema_usage=False) == "role reader has no USAGE right on schema public"
    assert denied(select=False, columns=none) == "role reader has no SELECT right on public.wells"
    assert denied(select=False, columns=some) == "role reader has no SELECT right on id, the key of public.wells"
    assert denied(select=False) is None


def test_hidden_columns() -> None:
    columns = {at: replace(column, selectable=column.name in ("id", "tag")) for at, column in rights().columns.items()}
    decision = judge(policy(OWN), select=False, columns=columns)
    assert decision.hidden == {"owner", "name", "ok", "code"}
    assert decision.denied is None
    assert decision.predicate.test(row()) == TRUE
    without_key = decide(rights(policy(OWN), columns=columns), relation(key=None), Types(), SUBJECT)
    assert without_key.denied is None
    dropped = {at: column for at, column in rights().columns.items() if column.name != "name"}
    assert judge(policy(YES), columns=dropped).hidden == {"name"}


CLAIM = io_cast(op(3477, call(JWT, result=JSONB), text("sub")), UUID)


@pytest.mark.parametrize(
    ("expression", "declared", "reason"),
    [
        (call(UID), {"request.jwt.claim.sub": "secret"}, "auth.uid(): invalid input for type uuid"),
        (CLAIM, {"request.jwt.claims": "secret"}, "auth.jwt(): the text is not JSON"),
        (
            CLAIM,
            {"request.jwt.claims": '{"sub": "secret"}'},
            "(auth.jwt() ->> 'sub')::uuid: invalid input for type uuid",
        ),
        (CLAIM, {"request.jwt.claims": '{"sub": ""}'}, "(auth.jwt() ->> 'sub')::uuid: invalid input for type uuid"),
        (CLAIM, {"request.jwt.claims": '{"sub": ["secret"]}'}, "invalid input for type uuid"),
        (io_cast(call(2077, text("app.x")), UUID), {}, "current_setting('app.x'): the subject does not declare"),
        (io_cast(call(3294, text("app.x"), NO), UUID), {}, "current_setting('app.x'): the subject does not declare"),
        (io_cast(call(3294, text("app.x"), YES), UUID), {"app.x": ""}, "invalid input for type uuid"),
    ],
)
def test_a_session_expression_without_value_denies_this_subject(
    expression: str, declared: dict[str, str], reason: str
) -> None:
    tree = both("or", OK, op(2972, var("owner"), expression))
    for policies in (
        [policy(tree, "mine")],
        [policy(YES), restrictive(tree, "mine")],
        [policy(YES), policy(tree, "mine")],
    ):
        judged = rights(*policies)
        decision = decide(judged, relation(), Types(), Subject("reader", settings=declared))
        assert decision.denied and decision.denied.startswith('policy "mine" cannot be evaluated for this subject: ')
        assert reason in decision.denied and "secret" not in decision.denied
        assert decision.predicate.test(row()) == FALSE and not decision.unsupported
        declared_right = {"request.jwt.claim.sub": ONE, "request.jwt.claims": f'{{"sub": "{ONE}"}}', "app.x": ONE}
        fine = decide(judged, relation(), Types(), Subject("reader", settings=declared_right))
        assert fine.denied is None and fine.predicate.test(row()) == TRUE


def test_no_right_to_execute_denies_the_subject() -> None:
    functions = FUNCTIONS | {UID: replace(FUNCTIONS[UID], executable=False)}
    decision = judge(policy(OWN), functions=functions)
    assert decision.denied is not None and decision.denied.endswith("role reader has no EXECUTE right on auth.uid()")


def test_rights_of_somebody_else_are_refused() -> None:
    with pytest.raises(ValueError, match="rights of reader"):
        decide(rights(policy(YES)), relation(), Types(), Subject("writer"))
    with pytest.raises(ValueError, match="rights of reader"):
        decide(rights(policy(YES), oid=501), relation(), Types(), SUBJECT)


def test_policies_are_compiled_once_for_many_subjects(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = 0
    original = compiling._compile_policies

    def counted(known: Any, scope: Scope) -> Any:
        nonlocal compiled
        compiled += 1
        return original(known, scope)

    monkeypatch.setattr(compiling, "_compile_policies", counted)
    judged, types = rights(policy(OWN)), Types()
    for number in range(100):
        owner = f"{number:08d}-1111-4111-8111-111111111111"
        subject = Subject("reader", settings={"request.jwt.claim.sub": owner})
        predicate = decide(judged, relation(), types, subject).predicate
        assert predicate.test(row(owner=owner.encode())) == TRUE
        assert predicate.test(row()) == FALSE
    assert compiled == 1
    decide(judged, relation(COLUMNS[:3]), types, SUBJECT)
    assert compiled == 2
    assert judged == rights(policy(OWN))
