"""Subjects and the JSON of their claims: what is refused, what is never shown, and the bodies of known functions."""

from __future__ import annotations

import json
import pickle
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc import Subject, SubscriptionError
from cdc.rls.bodies import known_parts, tokens
from cdc.rls.claims import Document, parse
from cdc.rls.policy import Function

SECRET = "do-not-print-me"


def test_a_subject_is_a_value() -> None:
    one = Subject("authenticated", {"sub": "x"}, {"app.tenant": "7", "App.Other": "8"})
    same = Subject("authenticated", '{"sub":"x"}', {"app.other": "8", "APP.TENANT": "7"})
    assert one == same and hash(one) == hash(same)
    assert one != Subject("authenticated", {"sub": "y"}, {"app.tenant": "7", "app.other": "8"})
    assert len({one, same, Subject("anon")}) == 2
    assert pickle.loads(pickle.dumps(one)) == one
    with pytest.raises(AttributeError):
        one.role = "postgres"  # type: ignore[misc]


def test_settings_are_found_whatever_their_case() -> None:
    subject = Subject("anon", {"sub": "x"}, {"App.Tenant": "Seven"})
    assert subject.setting("app.tenant") == subject.setting("APP.TENANT") == "Seven"
    assert subject.setting("request.jwt.claims") == '{"sub":"x"}'
    assert subject.setting("app.other") is None


def test_a_repr_has_names_and_no_values() -> None:
    subject = Subject("authenticated", {"sub": SECRET, "email": SECRET}, {"app.key": SECRET})
    assert repr(subject) == "<Subject 'authenticated'; claims: sub, email; settings: app.key>"
    assert repr(Subject("anon")) == "<Subject 'anon'>"
    assert repr(Subject("anon", {})) == "<Subject 'anon'; claims: none>"
    assert SECRET not in repr(Subject("anon", settings={"request.jwt.claims": SECRET}))
    assert SECRET not in str(subject)


@pytest.mark.parametrize(
    "claims",
    [
        "",
        SECRET,
        f'"{SECRET}"',
        f'["{SECRET}"]',
        "1",
        "null",
        f'{{"sub": "{SECRET}"',
        f'{{"sub": {SECRET}}}',
        f'{{"{SECRET}": NaN}}',
        f'{{"{SECRET}": "\\u0000"}}',
        f'{{"{SECRET}": "\\ud800"}}',
        '{"a": ' * 5000 + "1" + "}" * 5000,
        {SECRET: uuid4()},
        {SECRET: float("nan")},
        {SECRET: "\x00"},
        {SECRET: "\ud800"},
        {"a\x00": SECRET},
        {(1, 2): SECRET},
        [SECRET],
        7,
    ],
)
def test_claims_that_are_no_json_object(claims: object) -> None:
    with pytest.raises(SubscriptionError, match="claims are not JSON: ") as caught:
        Subject("authenticated", claims)  # type: ignore[arg-type]
    assert SECRET not in str(caught.value)
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_a_token_in_place_of_claims() -> None:
    with pytest.raises(SubscriptionError, match="this looks like a token") as caught:
        Subject("authenticated", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.secret")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"role": ""}, "needs the name of a role"),
        ({"role": None}, "needs the name of a role"),
        ({"role": "a", "settings": {"role": "postgres"}}, "has a dot"),
        ({"role": "a", "settings": {".x": "y"}}, "has a dot"),
        ({"role": "a", "settings": {7: "y"}}, "has a dot"),
        ({"role": "a", "settings": {"app.x": 7}}, "app.x is not text"),
        ({"role": "a", "settings": {"app.x": "\x00"}}, "app.x is not text"),
        ({"role": "a", "settings": {"app.x": "\udfff"}}, "app.x is not text"),
        ({"role": "a", "claims": {}, "settings": {"request.jwt.CLAIMS": "{}"}}, "give the claims once"),
    ],
)
def test_what_cannot_be_a_subject(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(SubscriptionError, match=message):
        Subject(**arguments)  # type: ignore[arg-type]


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("aé\n\"\\'{}"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc"), inner, max_size=3),
)


@given(_JSON)
def test_what_json_writes_is_read(value: object) -> None:
    document = parse(json.dumps(value))
    if isinstance(value, str):
        assert document.text() == value
    elif isinstance(value, dict):
        assert document.names == list(value)
    elif isinstance(value, bool):
        assert document.text() == ("true" if value else "false")


@given(st.text() | st.text('{}[]:,"\\0123456789.eE+-tfnau '))
def test_any_text_is_a_document_or_a_value_error(text: str) -> None:
    try:
        document = parse(text)
    except ValueError:
        return
    assert isinstance(document, Document)


def test_numbers_print_as_the_type_prints_them() -> None:
    for digits, numeric in {"1.50": "1.50", "1E3": "1000", "-0": "0", "-0.0": "0.0", "1.5e-3": "0.0015"}.items():
        assert parse(f'{{"a": {digits}}}').field("a").text() == numeric  # type: ignore[union-attr]
        assert parse(f'{{"a": {digits}}}', binary=False).field("a").text() == digits  # type: ignore[union-attr]
    for beyond in ("1e131072", "1e-16384", "1e99999999999999999999"):
        with pytest.raises(ValueError, match="numeric cannot hold"):
            parse(f"[{beyond}]").value and Document(parse(beyond).value, True).text()


def test_a_null_in_json_is_a_document_whose_text_is_null() -> None:
    null = parse('{"a": null}').field("a")
    assert null is not None and null.text() is None and null.field("b") is None
    assert parse('{"a": 1}').field("b") is None
    assert parse("[1]").field("a") is None


def test_the_text_of_an_object_is_not_made() -> None:
    with pytest.raises(ValueError, match="object or an array"):
        parse('{"a": 1}').text()


def _function(body: str, **changed: object) -> Function:
    values: dict[str, object] = {
        "schema": "auth",
        "name": "uid",
        "arguments": "",
        "language": "sql",
        "body": body,
        "security_definer": False,
        "settings": (),
        "result": 2950,
        "returns_set": False,
        "argument_count": 0,
        "kind": "f",
        "volatility": "s",
        "executable": True,
    }
    return Function(**(values | changed))  # type: ignore[arg-type]


UID = "select nullif(current_setting('request.jwt.claim.sub', true), '')::uuid"


def test_a_known_body() -> None:
    parts = known_parts(_function(UID))
    assert parts is not None
    assert [part.source(Subject("a", settings={"request.jwt.claim.sub": "x"})) for part in parts] == ["x"]
    assert [part.source(Subject("a", settings={"request.jwt.claim.sub": ""})) for part in parts] == [None]


@pytest.mark.parametrize(
    "changed",
    [
        {"language": "plpgsql"},
        {"security_definer": True},
        {"settings": ("search_path=evil",)},
        {"result": 25},
        {"returns_set": True},
        {"argument_count": 1},
        {"kind": "p"},
        {"body": ""},
        {"body": ";"},
        {"body": UID + "; select 1"},
        {"body": UID + " limit 1"},
        {"body": UID.replace("'request", "E'request")},
        {"body": UID.replace("nullif", '"nullif"')},
        {"body": UID.replace("nullif", "evil.nullif")},
        {"body": UID.replace("claim.sub", "claim.SUB")},
        {"body": UID.replace("claim.sub", "claim.sub ")},
        {"body": UID.replace("::", ": :")},
        {"body": UID.replace("true", "'t'")},
        {"body": f"/* /* */ {UID} */"},
        {"body": f"/* {UID}"},
        {"body": UID.replace("sub", "role")},
    ],
)
def test_whatever_differs_is_not_known(changed: dict[str, object]) -> None:
    assert known_parts(_function(**({"body": UID} | changed))) is None  # type: ignore[arg-type]


def test_white_space_comments_and_case_do_not_count() -> None:
    spelled = """
      -- who it is; '
      SELECT /* of
      the token */ NullIf ( current_setting('request.jwt.claim.sub',TRUE),'' ) :: UUID ;
    """
    assert tokens(spelled) == tokens(UID)
    assert known_parts(_function(spelled)) is not None


def test_tokens_keep_what_is_in_quotes() -> None:
    assert tokens("select 'It''s  -- A' ->> 'x'") == ("select", "'It''s  -- A'", "->>", "'x'")
    assert tokens("select 1") == ()
