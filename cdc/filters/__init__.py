"""Row filters as subscribers write them, `column=operator.value`, made into predicates.

Pure: no I/O, no clock. The form is that of PostgREST and of Supabase Realtime. `grammar` takes the text apart,
`compile` types each condition by its column.
"""

from __future__ import annotations

from cdc.filters.compile import compile_filter
from cdc.filters.grammar import OPERATORS
from cdc.filters.target import NOTHING_KNOWN, Collations

__all__ = ["NOTHING_KNOWN", "OPERATORS", "Collations", "compile_filter"]
