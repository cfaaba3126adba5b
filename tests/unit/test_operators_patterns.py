"""Patterns that would take others for ever, and what is left to the server."""

from __future__ import annotations

import pytest

from cdc.operators import Collation, Context, Failed, Undecided, builtin
from cdc.operators.likes import like
from cdc.operators.regexes import translate

LONG = "a" * 20_000


@pytest.mark.parametrize(
    "pattern", ["(a*)*b", "(a+)+$b", "(a|aa)+$b", "a*a*a*a*a*a*b", "(.*.*.*=.*)c", "^(([a-z])+.)+[A-Z]([a-z])+$"]
)
def test_no_pattern_goes_back_over_a_text(pattern: str) -> None:
    found = translate(pattern)
    assert found is not None
    assert not found.matches(Context(), LONG)


def test_like_looks_for_each_piece_once() -> None:
    assert not like(LONG, "%a" * 500 + "%b")
    assert like(LONG, "%a" * 500 + "%")


@pytest.mark.parametrize(
    "pattern", ["(((((a{255}){255}){255}){255}){255})", "(((){255}){255}){255}", "(" * 60 + ")" * 60]
)
def test_a_pattern_that_grows_is_refused(pattern: str) -> None:
    assert translate(pattern) is None


def test_a_text_that_needs_very_many_states_is_not_decided() -> None:
    found = translate("(a|b)*a" + "(a|b)" * 200 + "c")
    assert found is not None
    text = "".join("ab"[int(digit)] for number in range(2000) for digit in f"{number:b}")
    with pytest.raises(Undecided, match="too long"):
        found.matches(Context(), text)


def test_an_escape_at_the_end_fails_only_where_it_is_reached() -> None:
    assert not like("b", "a\\")
    with pytest.raises(Failed):
        like("ab", "a\\")


@pytest.mark.parametrize(
    ("signature", "texts"),
    [
        ("texteq(text, text)", ("a", "b")),
        ("textlike(text, text)", ("a", "a%")),
        ("textregexeq(text, text)", ("a", "a")),
        ("replace(text, text, text)", ("a", "b", "c")),
        ("strpos(text, text)", ("a", "b")),
    ],
)
def test_nothing_is_decided_under_a_nondeterministic_collation(signature: str, texts: tuple[str, ...]) -> None:
    found = builtin(signature)
    assert found is not None and found.contextual
    with pytest.raises(Undecided):
        found.call(Context(collation=Collation.NONDETERMINISTIC), *texts)


@pytest.mark.parametrize(
    ("signature", "texts"),
    [
        ("text_lt(text, text)", ("a", "b")),
        ("lower(text)", ("É",)),
        ("lower(text)", ("HI",)),
        ("upper(text)", ("hi",)),
        ("initcap(text)", ("a",)),
        ("texticlike(text, text)", ("HI", "h%")),
        ("texticregexeq(text, text)", ("a", "a")),
        ("textregexeq(text, text)", ("é", "\\w")),
    ],
)
def test_what_the_language_decides_is_not_decided_here(signature: str, texts: tuple[str, ...]) -> None:
    found = builtin(signature)
    assert found is not None and found.contextual
    with pytest.raises(Undecided):
        found.call(Context(collation=Collation.LINGUISTIC), *texts)
    assert found.call(Context(collation=Collation.CODE_POINT), *texts) is not None


@pytest.mark.parametrize(
    "signature",
    ["texteq(text, text)", "text_lt(text, text)", "lower(text)", "octet_length(text)", "textlike(text, text)"],
)
def test_other_encodings_leave_open_what_is_beyond_ascii(signature: str) -> None:
    found, context = builtin(signature), Context(collation=Collation.CODE_POINT, utf8=False)
    assert found is not None and found.contextual
    for text in ("a", "é"):
        texts = (text,) * (signature.count(",") + 1)
        if text == "é":
            with pytest.raises(Undecided):
                found.call(context, *texts)
        else:
            assert found.call(context, *texts) is not None
