"""Values: the cells of a row and Python objects, and PostgreSQL's equality of both.

Pure: no I/O, no clock, of psycopg only its Range and Multirange. One file holds one family of types; `Types` knows
them all.
"""

from __future__ import annotations

from cdc.values.arrays import BoundedArray
from cdc.values.equality import Equality
from cdc.values.intervals import Interval
from cdc.values.types import TypeInfo, Types

__all__ = ["BoundedArray", "Equality", "Interval", "TypeInfo", "Types"]
