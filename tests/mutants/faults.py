"""The faults."""

from __future__ import annotations

from tests.mutants.trial import Fault

__all__ = ["FAULTS"]

_PREDICATE, _VIEW = "cdc/predicate.py", "cdc/view.py"
_STREAMS = "tests/integration/test_subjects.py"

FAULTS = [
    Fault(
        "OR in two values: NULL OR true is NULL",
        _PREDICATE,
        "    if right in (TRUE, ERROR):\n        return right\n    return NULL if NULL in (left, right) else FALSE",
        "    if NULL in (left, right):\n        return NULL\n    return right if right in (TRUE, ERROR) else FALSE",
    ),
    Fault(
        "AND in two values: NULL AND false is NULL, seen under NOT",
        _PREDICATE,
        "    if right in (FALSE, ERROR):\n        return right\n    return NULL if NULL in (left, right) else TRUE",
        "    if NULL in (left, right):\n        return NULL\n    return right if right in (FALSE, ERROR) else TRUE",
    ),
    Fault("NOT of NULL is true", _PREDICATE, "{TRUE: FALSE, FALSE: TRUE}", "{TRUE: FALSE, FALSE: TRUE, NULL: TRUE}"),
    Fault(
        "an error in OR counts as false",
        _PREDICATE,
        "    if left in (TRUE, ERROR):\n        return left\n    if right in (TRUE, ERROR):",
        "    if left == TRUE:\n        return left\n    if right == TRUE:",
    ),
    Fault("unknown is shown", _PREDICATE, "    if outcome == TRUE:", "    if outcome & TRUE:"),
]
