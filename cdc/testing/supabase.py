"""Gives a database the roles and the `auth` functions that Supabase has.

Touches only the database that it is given (and the roles of its server).
"""

from __future__ import annotations

from importlib import resources
from typing import Any

import psycopg

__all__ = ["apply_supabase"]


def apply_supabase(target: psycopg.Connection[Any] | str) -> None:
    """Make the roles `anon`, `authenticated` and `service_role`, and the schema `auth` with its four functions.

    The functions are `auth.uid()`, `auth.role()`, `auth.email()` and `auth.jwt()`. Applying it again does no harm.

    Args:
        target: a DSN, or an open connection of a superuser. On a connection that is not in autocommit mode the
            change is a part of the caller's transaction, and the caller commits.

    Raises:
        psycopg.Error: the server refuses, or cannot be reached.
    """
    statements = resources.files("cdc.testing").joinpath("supabase.sql").read_bytes()
    if isinstance(target, str):
        with psycopg.connect(target, autocommit=True) as connection:
            connection.execute(statements)
    else:
        target.execute(statements)
