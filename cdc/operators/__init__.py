"""PostgreSQL's operators and functions, evaluated in Python: what policies and filters compute with a row's cells.

Pure: no I/O, no clock. A *datum* is a value as these functions take it (see `datums`); NULL is None. `builtin` finds a
function by its signature in PostgreSQL's catalog, and an operator by that of its function.
"""

from __future__ import annotations

from cdc.operators.builtins import Builtin
from cdc.operators.context import UNSENT, Collation, Context, Failed, Moment, Undecided
from cdc.operators.datums import Datums
from cdc.operators.tables import builtin

__all__ = ["UNSENT", "Builtin", "Collation", "Context", "Datums", "Failed", "Moment", "Undecided", "builtin"]
