"""A subject: as whom a subscriber looks at a table.

Pure: no I/O. A subject is what a session would be after SET ROLE and set_config: a role and settings. Claims are
the setting `request.jwt.claims`, where PostgREST and Supabase put the body of a verified token. cdc verifies no
token: whoever makes a subject has done so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cdc.errors import SubscriptionError
from cdc.rls import claims as json_claims

__all__ = ["CLAIMS", "Subject"]

CLAIMS = "request.jwt.claims"
"""The setting that holds the claims."""


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Subject:
    """As whom a subscriber looks: a role, claims and settings. Immutable and hashable; its repr shows no values.

    Attributes:
        role: name of the role, which need not be able to log in.
        settings: the declared settings, claims included, as sorted pairs of lower-case name and value.
    """

    role: str
    settings: tuple[tuple[str, str], ...]

    def __init__(
        self,
        role: str,
        claims: Mapping[str, Any] | str | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """Make a subject.

        Args:
            role: name of a PostgreSQL role, such as `authenticated`.
            claims: a mapping, or the JSON text of an object; what `auth.jwt()` gives.
            settings: values of custom settings by name, such as `{"app.tenant": "7"}`; what `current_setting` gives.

        Raises:
            SubscriptionError: the claims are not JSON, or a setting cannot be one.
        """
        if not isinstance(role, str) or not role:
            raise SubscriptionError("a subject needs the name of a role")
        declared = dict(_setting(name, value) for name, value in (settings or {}).items())
        if claims is not None:
            if CLAIMS in declared:
                raise SubscriptionError(f"give the claims once: as claims=, or as the setting {CLAIMS}")
            declared[CLAIMS] = _claims_text(claims)
        object.__setattr__(self, "role", role)
        object.__setattr__(self, "settings", tuple(sorted(declared.items())))

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


def _setting(name: str, value: str) -> tuple[str, str]:
    if not isinstance(name, str) or "." not in name.strip("."):
        raise SubscriptionError(f"{name!r} is not the name of a custom setting, which has a dot: `app.tenant`")
    if not isinstance(value, str) or not _is_text(value):
        raise SubscriptionError(f"the value of the setting {name} is not text that PostgreSQL can hold")
    return name.lower(), value


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
        raise SubscriptionError(f"claims are not JSON: {error}") from None
    if not isinstance(document.value, dict):
        raise SubscriptionError('claims are not JSON: an object is needed, such as {"sub": "…"}')
    return text


def _claim_names(text: str) -> list[str]:
    try:
        return json_claims.parse(text).names
    except ValueError:
        return ["not JSON"]
