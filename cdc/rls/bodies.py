"""The session functions that cdc knows, by their bodies: `auth.uid()`, `auth.jwt()` and their like.

Pure: no I/O. A name proves nothing: `auth.uid()` may be anybody's code. So a function is known when it is written in
SQL, is neither SECURITY DEFINER nor under settings of its own, takes no arguments, and its body is, token for token,
one of those below; they are the bodies that Supabase has shipped over the years and those that public projects
write for tests. Comments, white space and the case of words do not count, everything within quotes does.

Each body is a coalesce of texts of the session, cast to the type that the function returns.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from cdc.rls.policy import Function
from cdc.rls.subject import Subject

__all__ = ["Part", "known_parts", "tokens"]

_TOKEN = re.compile(
    r"(?P<blank>[ \t\r\n\f]+|--[^\r\n]*|/\*.*?\*/)"
    r"|(?P<word>[A-Za-z_][A-Za-z0-9_$]*)"
    r"|(?P<quoted>'(?:[^']|'')*')"
    r"|(?P<mark>::|->>|[(),;])",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Part:
    """One argument of the coalesce: a setting's value, or a claim in the JSON of one.

    Attributes:
        setting: name of the setting, read with missing_ok.
        blank_is_null: whether `nullif(…, '')` is round it.
        claim: name of the claim, None for the setting's whole text.
        default: a fixed text instead of a setting.
    """

    setting: str = ""
    blank_is_null: bool = False
    claim: str | None = None
    default: str | None = None

    def source(self, subject: Subject) -> str | None:
        """The setting's text for a subject, or the default; None is NULL."""
        if self.default is not None:
            return self.default
        value = subject.setting(self.setting)
        return None if self.blank_is_null and not value else value


Parts: TypeAlias = tuple[Part, ...]

_OWN = "current_setting('request.jwt.claim.{0}', true)"
_ALL = "current_setting('request.jwt.claims', true)"
_WHOLE = "current_setting('request.jwt.claim', true)"

_CLAIM_BODIES: list[tuple[str, Callable[[str], Parts]]] = [
    (f"nullif({_OWN}, '')", lambda name: (_own(name),)),
    (f"nullif({_ALL}, '')::jsonb ->> '{{0}}'", lambda name: (_claim(name),)),
    (f"{_ALL}::jsonb ->> '{{0}}'", lambda name: (_claim(name, False),)),
    (
        f"coalesce(nullif({_OWN}, ''), (nullif({_ALL}, '')::jsonb ->> '{{0}}'))",
        lambda name: (_own(name), _claim(name)),
    ),
    (
        f"coalesce((nullif({_ALL}, '')::jsonb ->> '{{0}}'), nullif({_OWN}, ''))",
        lambda name: (_claim(name), _own(name)),
    ),
    (f"coalesce({_OWN}, ({_ALL}::jsonb ->> '{{0}}'))", lambda name: (_own(name, False), _claim(name, False))),
    (f"coalesce(({_ALL}::jsonb ->> '{{0}}'), {_OWN})", lambda name: (_claim(name, False), _own(name, False))),
]
_CLAIMS = {"sub": 2950, "role": 25, "email": 25}
_CASTS = {2950: ("::uuid",), 25: ("", "::text")}

_JSON_BODIES: list[tuple[str, Parts]] = [
    (f"{_ALL}::jsonb", (Part("request.jwt.claims"),)),
    (f"nullif({_ALL}, '')::jsonb", (Part("request.jwt.claims", True),)),
    (f"coalesce({_WHOLE}, {_ALL})::jsonb", (Part("request.jwt.claim"), Part("request.jwt.claims"))),
    (
        f"coalesce(nullif({_WHOLE}, ''), nullif({_ALL}, ''))::jsonb",
        (Part("request.jwt.claim", True), Part("request.jwt.claims", True)),
    ),
    (f"coalesce(nullif({_ALL}, ''), '{{}}')::jsonb", (Part("request.jwt.claims", True), Part(default="{}"))),
]
_JSONB = 3802


def known_parts(function: Function) -> Parts | None:
    """What a function without arguments gives: the first of the parts that is not NULL, cast to its result type.

    None when the function or its body is not one that cdc knows.
    """
    plain = function.language == "sql" and function.kind == "f" and not function.returns_set
    if not plain or function.security_definer or function.settings or function.argument_count:
        return None
    return _KNOWN.get((tokens(function.body), function.result))


def tokens(body: str) -> tuple[str, ...]:
    """The tokens of an SQL body without a semicolon at its end; empty when it has any that no known body has."""
    found: list[str] = []
    position = 0
    while position < len(body):
        match = _TOKEN.match(body, position)
        if match is None:
            return ()
        position = match.end()
        if match.lastgroup != "blank":
            found.append(match[0].lower() if match.lastgroup == "word" else match[0])
    return tuple(found[:-1] if found[-1:] == [";"] else found)


def _own(claim: str, blank_is_null: bool = True) -> Part:
    return Part(f"request.jwt.claim.{claim}", blank_is_null)


def _claim(claim: str, blank_is_null: bool = True) -> Part:
    return Part("request.jwt.claims", blank_is_null, claim)


def _spellings() -> dict[tuple[tuple[str, ...], int], Parts]:
    """Every known body by its tokens and result type."""
    known = {(tokens(f"select {body}"), _JSONB): parts for body, parts in _JSON_BODIES}
    for claim, result in _CLAIMS.items():
        for template, parts_of in _CLAIM_BODIES:
            text = template.replace("{0}", claim)
            for cast in _CASTS[result]:
                # A cast binds tighter than an operator, so ->> needs parentheses before it.
                for spelled in (text, f"({text})") if text[-1] == ")" else (f"({text})",):
                    known[tokens(f"select {spelled}{cast}"), result] = parts_of(claim)
                if not cast:
                    known[tokens(f"select {text}"), result] = parts_of(claim)
    return known


_KNOWN = _spellings()
