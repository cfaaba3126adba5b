"""The command `cdc setup`: prepares a database by the scripts of the folder sql/.

Touches one database, in one transaction: the schema cdc and the publication always, anything else only when asked
for by its own flag. It removes and overwrites nothing, and the scripts note what they really changed in cdc.made.
"""

from __future__ import annotations

from collections.abc import Sequence

import click
import psycopg

from cdc.connection import connect
from cdc.daemon.scripts import PREPARATION, Notices, execute, read_script, refusal, setting_statements

__all__ = ["setup"]

_POLICIES = ("select_anon", "select_authenticated", "insert_anon", "insert_authenticated")
_LONGEST_NAME = 63


def _name(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Refuse what cannot be a name; the server would cut a long one without a word."""
    if value is not None and not 0 < len(value.encode()) <= _LONGEST_NAME:
        raise click.BadParameter(f"a name has 1 to {_LONGEST_NAME} bytes", ctx, parameter)
    return value


def _policies(ctx: click.Context, parameter: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    """Split each NAME=CONDITION."""
    pairs = [(name.strip(), condition.strip()) for name, _, condition in (value.partition("=") for value in values)]
    for name, condition in pairs:
        if name not in _POLICIES or not condition:
            raise click.BadParameter(f"NAME=CONDITION, where NAME is one of {', '.join(_POLICIES)}", ctx, parameter)
    return dict(pairs)


@click.command()
@click.option("--dsn", envvar="CDC_DSN", help="The database. Without it, CDC_DSN is read. --dry-run needs none.")
@click.option("--publication", default="wells", show_default=True, callback=_name, help="Name of the publication.")
@click.option(
    "--table",
    "tables",
    multiple=True,
    metavar="TABLE",
    help="A table to publish, `table` or `schema.table`; can be repeated.  [default: public.wells]",
)
@click.option("--all-tables", is_flag=True, help="Publish all tables of schema public; run it again for new ones.")
@click.option("--role", metavar="NAME", callback=_name, help="Make a role for the consumer, or give it the rights.")
@click.option("--rls", is_flag=True, help="Row-level security: SELECT and INSERT for anon and authenticated.")
@click.option(
    "--policy",
    "policies",
    multiple=True,
    callback=_policies,
    metavar="NAME=CONDITION",
    help=f"With --rls: the condition of a policy ({', '.join(_POLICIES)}).  [default: true]",
)
@click.option("--replica-identity-full", is_flag=True, help="Let updates and deletes carry the whole old row.")
@click.option("--dry-run", is_flag=True, help="Print every statement, as a script for psql, and do nothing.")
def setup(
    dsn: str | None,
    publication: str,
    tables: tuple[str, ...],
    all_tables: bool,
    role: str | None,
    rls: bool,
    policies: dict[str, str],
    replica_identity_full: bool,
    dry_run: bool,
) -> None:
    """Prepare a database: the schema cdc and the publication, and what the flags ask for.

    A superuser also gets the tables cdc.rights and cdc.rewrites, published too, and event triggers that fill them:
    rights are applied at their place in the stream then, and caches are cleared when DDL rewrites a table.

    Run it as often as you like: what is there stays as it is. It is one transaction. `cdc drop --everything` undoes
    what it made. Names of tables are case-sensitive; one with quotes is read as SQL reads it.

    With --all-tables, --rls and --replica-identity-full concern the tables that --table names.

    \b
    cdc setup --dsn postgresql://postgres@db/app --table wells --table projects
    cdc setup --all-tables --role cdc_reader --dry-run | psql "$CDC_DSN"
    """
    if all_tables and (rls or replica_identity_full) and not tables:
        raise click.UsageError("--all-tables: name the tables for --rls and --replica-identity-full with --table")
    if policies and not rls:
        raise click.UsageError("--policy goes with --rls")
    settings = {"publication": publication, "tables": ", ".join(map(_quoted, tables or ["public.wells"]))}
    if role is not None:
        settings["role"] = role
    statements = [*PREPARATION, *setting_statements(settings | policies)]
    statements += map(read_script, _scripts(all_tables, role is not None, rls, replica_identity_full))
    if dry_run:
        click.echo("\n".join(["\\set ON_ERROR_STOP on", "BEGIN;", *statements, "COMMIT;"]))
        return
    if dsn is None:
        raise click.UsageError("name the database with --dsn, or in the variable CDC_DSN")
    _run(dsn, statements)


def _scripts(all_tables: bool, role: bool, rls: bool, replica_identity_full: bool) -> list[str]:
    """The scripts to run. Not in the order of their numbers.

    A publication wants the replica identity to be there, and the role is granted what is published by then. The
    parking lot is for those who may save positions, and so is the table of rights, which joins the publication.
    """
    chosen = {
        "01_schema.sql": True,
        "06_replica_identity.sql": replica_identity_full,
        "03_publication_table.sql": not all_tables,
        "04_publication_all_tables.sql": all_tables,
        "05_row_level_security.sql": rls,
        "02_role.sql": role,
        "09_parked.sql": True,
        "10_rights.sql": True,
        "20_rewrites.sql": True,
    }
    return [name for name, wanted in chosen.items() if wanted]


def _quoted(table: str) -> str:
    """The table's name in SQL: as written when it has quotes, else exactly these letters."""
    if '"' in table or not table.strip():
        return table
    return ".".join(f'"{part}"' for part in table.strip().rsplit(".", 1))


def _run(dsn: str, statements: Sequence[str]) -> None:
    with connect(dsn) as connection:
        notices = Notices(connection)
        try:
            with connection.transaction():
                execute(connection, statements)
        except psycopg.Error as error:
            raise refusal(error, connection.info.user) from None
    if not notices.echo():
        click.echo("Nothing to do: everything is in place.")
