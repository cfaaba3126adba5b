"""A subject: as whom a subscriber looks at a table.

Pure: no I/O. A subject is what a session would be after SET ROLE and set_config: a role and settings. Claims are
the setting `request.jwt.claims`, where PostgREST and Supabase put the body of a verified token. `from_jwt` verifies a
token (see `tokens`); whoever makes a subject in another way has done that.
"""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Self
from zoneinfo import available_timezones

from cdc.errors import SubscriptionError
from cdc.rls import claims as json_claims
from cdc.rls.policy import Function
from cdc.rls.tokens import verified

__all__ = ["CLAIMS", "SESSION_USER", "ZONE", "Answer", "Subject"]

CLAIMS = "request.jwt.claims"
"""The setting that holds the claims."""

ZONE, SESSION_USER = "timezone", "session_authorization"
"""The settings without a dot that a subject may declare: the time zone, and the role that `session_user` gives."""

_LONGEST_NAME = 63


@dataclass(frozen=True, slots=True)
class Answer:
    """What a function gave to a subject when the server ran it: the value's text, None for NULL; or why it did not."""

    text: str | None
    problem: str | None


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Subject:
    """As whom a subscriber looks: a role, claims and settings. Immutable and hashable; its repr shows no values.

    Attributes:
        role: name of the role, which need not be able to log in.
        settings: the declared settings, claims included, as sorted pairs of lower-case name and value.
        expires: when its claims are not valid any more, in seconds since 1970: `exp` plus the leeway; None: never.
    """

    role: str
    settings: tuple[tuple[str, str], ...]
    expires: float | None
    _answers: dict[Hashable, Answer] = field(compare=False)

    def __init__(
        self,
        role: str,
        claims: Mapping[str, Any] | str | None = None,
        settings: Mapping[str, str] | None = None,
        leeway: float = 0.0,
    ) -> None:
        """Make a subject.

        Args:
            role: name of a PostgreSQL role, such as `authenticated`.
            claims: a mapping, or the JSON text of an object; what `auth.jwt()` gives. Its `exp`, if there is one, ends
                the subscriptions of this subject.
            settings: values of custom settings by name, such as `{"app.tenant": "7"}`; what `current_setting` gives.
                Also `TimeZone`, and `session_authorization`: what `session_user` gives.
            leeway: seconds that the claims are taken as valid behind `exp`, for clocks that differ.

        Raises:
            SubscriptionError: the claims are not JSON, `exp` is no number, or a setting cannot be one.
        """
        if not isinstance(role, str) or not role or not _is_text(role):
            raise SubscriptionError("a subject needs the name of a role")
        _check_leeway(leeway)
        declared = dict(_setting(name, value) for name, value in (settings or {}).items())
        if claims is not None:
            if CLAIMS in declared:
                raise SubscriptionError(f"give the claims once: as claims=, or as the setting {CLAIMS}")
            declared[CLAIMS] = _claims_text(claims)
        object.__setattr__(self, "role", role)
        object.__setattr__(self, "settings", tuple(sorted(declared.items())))
        object.__setattr__(self, "_answers", {})
        exp = _expiry(declared.get(CLAIMS))
        object.__setattr__(self, "expires", None if exp is None else exp + leeway)

    @classmethod
    def from_jwt(
        cls,
        token: str,
        *,
        key: Any,
        algorithms: Iterable[str] | None = None,
        audience: str | Iterable[str] | None = None,
        issuer: str | None = None,
        role_claim: str = "role",
        settings: Mapping[str, str] | None = None,
        leeway: float = 0.0,
    ) -> Self:
        """Verify a JSON Web Token, and make the subject that it speaks of. Needs the extra `jwt`.

        The signature is verified, and `exp`, `nbf`, `iat`, `aud` and `iss` where the token has them.

        Args:
            token: as it stands behind `Bearer`.
            key: the shared secret; a public key or certificate as PEM; a JWK, or a set of them, as a dict; a public key
                of `cryptography`; a `jwt.PyJWKClient`, which fetches the keys of an address and keeps them.
            algorithms: those that may have signed, such as `["RS256"]`; default: all that fit the kind of the key.
            audience: what the claim `aud` has to be, or one of several; needed when the token has it.
            issuer: what the claim `iss` has to be.
            role_claim: name of the claim that holds the role.
            settings: as for `Subject`.
            leeway: seconds by which clocks may differ, when it is verified and when it expires.

        Raises:
            SubscriptionError: the token is not valid, or has no role; the message does not quote it.
            ConfigurationError: the key or the algorithms cannot be used, or PyJWT is not installed.
            ConnectionFailed: the keys cannot be fetched.
        """
        _check_leeway(leeway)
        claims, text = verified(token, key, algorithms, audience, issuer, leeway)
        role = claims.get(role_claim)
        if not isinstance(role, str) or not role:
            raise SubscriptionError(f"the token has no role: its claim {role_claim!r} is missing or is not text")
        return cls(role, text, settings, leeway)

    def answer(self, function: Function) -> Answer | None:
        """What a function has given to this subject; None when it was not run, or is another one now."""
        return self._answers.get(_identity(function))

    def keep(self, function: Function, answer: Answer) -> None:
        """Remember what a function has given."""
        self._answers[_identity(function)] = answer

    def setting(self, name: str) -> str | None:
        """The value of a setting, None when the subject does not declare it. Case does not matter."""
        return dict(self.settings).get(name.lower())

    def __repr__(self) -> str:
        claims = self.setting(CLAIMS)
        parts = [repr(self.role)]
        if claims is not None:
            parts.append(f"claims: {', '.join(_claim_names(claims)) or 'none'}")
        names = [name for name, _ in self.settings if name != CLAIMS]
        if names:
            parts.append(f"settings: {', '.join(names)}")
        return f"<Subject {'; '.join(parts)}>"


def _identity(function: Function) -> Hashable:
    """What of a function makes it another one."""
    return (function.schema, function.name, function.language, function.body, function.tree, function.settings,
            function.security_definer, function.result)  # fmt: skip


def _setting(name: str, value: str) -> tuple[str, str]:
    known = name.lower() if isinstance(name, str) else ""
    if known not in (ZONE, SESSION_USER) and "." not in known.strip("."):
        raise SubscriptionError(
            f"{name!r} is not the name of a custom setting, which has a dot: `app.tenant`. Without one, there are "
            "TimeZone and session_authorization"
        )
    if not isinstance(value, str) or not _is_text(value):
        raise SubscriptionError(f"the value of the setting {name} is not text that PostgreSQL can hold")
    if known == ZONE:
        return ZONE, _zone(value)
    if known == SESSION_USER and not 0 < len(value.encode()) <= _LONGEST_NAME:
        raise SubscriptionError(f"the setting session_authorization is the name of a role, not {value!r}")
    return known, value


def _zone(name: str) -> str:
    """The time zone's name in its usual case, which does not matter to PostgreSQL."""
    found = _zones().get(name.lower())
    if found is None:
        raise SubscriptionError(
            f"the setting TimeZone is {name!r}, which is no time zone: take one such as Europe/Rome"
        )
    return found


@cache
def _zones() -> dict[str, str]:
    return {name.lower(): name for name in available_timezones() if name != "localtime"}


def _check_leeway(leeway: object) -> None:
    if isinstance(leeway, bool) or not isinstance(leeway, int | float) or not 0 <= leeway < math.inf:
        raise SubscriptionError(f"leeway is a number of seconds, 0 or above, not {leeway!r}")


def _expiry(claims: str | None) -> float | None:
    """The claim `exp` in seconds; None when there is none. Raises SubscriptionError when it is no number."""
    if claims is None or ('"exp"' not in claims and "\\u" not in claims):
        return None
    try:
        found = json_claims.parse(claims).field("exp")
    except ValueError:
        return None  # A setting that is no JSON: there is nothing in it.
    if found is None:
        return None
    seconds = found.seconds
    if seconds is None:
        raise SubscriptionError("the claim exp is no number of seconds: claims that end are to say when")
    return seconds


def _is_text(value: str) -> bool:
    try:
        return b"\x00" not in value.encode()
    except UnicodeEncodeError:
        return False


def _claims_text(claims: Mapping[str, Any] | str) -> str:
    """The claims as JSON text. Raises SubscriptionError; no message quotes a value, since claims are secrets."""
    try:
        text = claims if isinstance(claims, str) else json.dumps(dict(claims), separators=(",", ":"), allow_nan=False)
        document = json_claims.parse(text)
    except (TypeError, ValueError, RecursionError) as error:
        if isinstance(claims, str) and claims.startswith("eyJ") and claims.count(".") == 2:
            raise SubscriptionError(
                "claims are not JSON: this looks like a token; claims are its body, and Subject.from_jwt verifies one"
            ) from None
        raise SubscriptionError(f"claims are not JSON: {error}") from None
    if not isinstance(document.value, dict):
        raise SubscriptionError('claims are not JSON: an object is needed, such as {"sub": "…"}')
    return text


def _claim_names(text: str) -> list[str]:
    try:
        return json_claims.parse(text).names
    except ValueError:
        return ["not JSON"]
