"""Values: the text of cells and Python objects, and PostgreSQL's equality of both.

Pure: no I/O, no clock, no psycopg. One file holds one family of types; `Types` knows them all.
"""

from __future__ import annotations

from cdc.values.equality import Equality
from cdc.values.types import TypeInfo, Types

__all__ = ["Equality", "TypeInfo", "Types"]
