"""Row-level security, decided in Python: policies from the catalog become predicates over a row's cells.

Pure: no I/O, no clock, no psycopg. `cdc.rights` reads from the catalog what `decide` needs.
"""

from __future__ import annotations

from cdc.rls.compile import Decision, decide, review
from cdc.rls.policy import ColumnRights, Function, Policy, TableRights, Unsupported
from cdc.rls.subject import Answer, Subject

__all__ = [
    "Answer",
    "ColumnRights",
    "Decision",
    "Function",
    "Policy",
    "Subject",
    "TableRights",
    "Unsupported",
    "decide",
    "review",
]
