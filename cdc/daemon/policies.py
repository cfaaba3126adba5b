"""The command `cdc policies`: what row-level security each table has, and whether cdc can decide it.

Touches the terminal and, through `review_policies`, the catalogs of the database.
"""

from __future__ import annotations

import click

from cdc.rights import PolicyReview, TableReview, review_policies

__all__ = ["policies"]


@click.command()
@click.argument("table", required=False)
@click.option("--dsn", envvar="CDC_DSN", required=True, help="The database. Without it, CDC_DSN is read.")
def policies(table: str | None, dsn: str) -> None:
    """Say of each policy whether cdc can decide it, and why not.

    TABLE is `table` or `schema.table`. Without it, every table with row-level security or policies is shown. Only
    policies for reading count: FOR SELECT and FOR ALL.

    \b
    cdc policies --dsn postgresql://app@db/app
    cdc policies public.wells
    """
    reviews = review_policies(dsn, table)
    shown = [_table(review) for review in reviews] or ["no table has row-level security or policies"]
    click.echo("\n\n".join(shown))


def _table(review: TableReview) -> str:
    state = "on, and binds the owner too" if review.forced else "on"
    if not review.row_security:
        state = "off, so that policies do nothing and grants alone decide"
    lines = [f"{review.schema}.{review.table}: row-level security is {state}"]
    if review.row_security and not review.policies:
        lines.append(f"  no policy: {'nobody' if review.forced else 'nobody but the owner'} sees a row")
    lines += [line for reviewed in review.policies for line in _policy(reviewed)]
    return "\n".join(lines)


def _policy(reviewed: PolicyReview) -> list[str]:
    policy = reviewed.policy
    kind = "permissive" if policy.permissive else "restrictive"
    verdict = "supported" if reviewed.unsupported is None else f"not supported: {reviewed.unsupported}"
    if policy.expression is None:
        verdict = "supported: WITH CHECK only, grants nothing to readers"
    using = [] if policy.expression is None else [f"      using {' '.join(policy.expression.split())}"]
    return [
        f"  {policy.name}: {kind}, for {policy.command}, to {', '.join(policy.roles)}",
        *using,
        f"      {verdict}",
    ]
