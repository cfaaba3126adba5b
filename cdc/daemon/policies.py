"""The command `cdc policies`: what row-level security each table has, whether cdc can decide it, and for whom.

Touches the terminal and the one file that it is given; `cdc.explain` does the rest.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from cdc.explaining import explain, explain_all
from cdc.explanation import Explanation
from cdc.rls import Subject

__all__ = ["policies"]


@click.command()
@click.argument("table", required=False)
@click.option("--dsn", envvar="CDC_DSN", required=True, help="The database. Without it, CDC_DSN is read.")
@click.option("--as", "role", metavar="ROLE", help="Say what this role may see.")
@click.option("--claims", metavar="JSON|@FILE", help='The role\'s claims, such as \'{"sub": "…"}\'.')
@click.option("--set", "settings", metavar="NAME=VALUE", multiple=True, help="A setting of the role's session.")
@click.option("--key", metavar="KEY", help="Explain the row with this key; a JSON list for several columns.")
@click.option("--row", metavar="JSON|@FILE", help="Explain a row with these values by column.")
@click.option("--session-function", "functions", metavar="NAME", multiple=True, help="As session_functions of cdc run.")
@click.option("--rights-dsn", envvar="CDC_RIGHTS_DSN", help="The login that runs them.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def policies(
    table: str | None,
    dsn: str,
    role: str | None,
    claims: str | None,
    settings: tuple[str, ...],
    key: str | None,
    row: str | None,
    functions: tuple[str, ...],
    rights_dsn: str | None,
    as_json: bool,
) -> int:
    """Say of each policy whether cdc can decide it, and why not; with --as, what a role may see.

    TABLE is `table` or `schema.table`. Without it, every table with row-level security or policies is shown. Only
    policies for reading count: FOR SELECT and FOR ALL. Of a row it says what each policy decides, and what PostgreSQL
    itself says; if the two differ, the exit code is 1.

    \b
    cdc policies --dsn postgresql://app@db/app
    cdc policies wells --as authenticated --claims '{"sub": "…"}' --key 33
    """
    subject = _subject(role, claims, settings)
    if key is not None and row is not None:
        raise click.UsageError("give --key or --row, not both")
    if (key is not None or row is not None) and (table is None or subject is None):
        raise click.UsageError("--key and --row need a TABLE and --as: a row is explained to somebody")
    login = rights_dsn if functions else None
    if table is None:
        found = explain_all(dsn, subject, functions, login)
    else:
        given = None if row is None else _json(row, "--row")
        found = [explain(dsn, table, subject, key=_key(key), row=given, session_functions=functions, rights_dsn=login)]
    if as_json:
        shown = [each.to_dict() for each in found]
        click.echo(json.dumps(shown if table is None else shown[0], indent=2, ensure_ascii=False))
    else:
        click.echo("\n\n".join(map(str, found)) or "no table has row-level security or policies")
    return 1 if any(map(_differs, found)) else 0


class _Number(float):
    """A number that still knows its digits."""

    def __new__(cls, digits: str) -> _Number:
        number = super().__new__(cls, digits)
        number.digits = digits
        return number

    digits: str

    def __str__(self) -> str:
        return self.digits


def _differs(explanation: Explanation) -> bool:
    return explanation.server is not None and explanation.server.agrees is False


def _subject(role: str | None, claims: str | None, settings: tuple[str, ...]) -> Subject | None:
    if role is None:
        if claims is not None or settings:
            raise click.UsageError("--claims and --set need --as: they are those of a role")
        return None
    pairs = [each.partition("=") for each in settings]
    for name, equals, _ in pairs:
        if not equals:
            raise click.UsageError(f"--set {name}: write NAME=VALUE, such as app.tenant=7")
    text = None if claims is None else _text(claims, "--claims")
    return Subject(role, text, {name: value for name, _, value in pairs})


def _key(text: str | None) -> Any:
    """A list of JSON is a key of several columns; everything else is the text of one."""
    if text is None or not text.startswith("["):
        return text
    try:
        return tuple(json.loads(text))
    except (ValueError, RecursionError):
        return text


def _json(text: str, option: str) -> Any:
    """The object that the text, or the file behind an @, holds. Numbers keep their digits."""
    try:
        value = json.loads(_text(text, option), parse_float=_Number)
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"{option} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise click.UsageError(f'{option} is not an object of JSON, such as {{"id": 1}}')
    return value


def _text(text: str, option: str) -> str:
    if not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text("utf-8")
    except OSError as error:
        raise click.UsageError(f"{option}: {text[1:]} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise click.UsageError(f"{option}: {text[1:]} is not text in UTF-8") from None
