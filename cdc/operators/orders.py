"""The six comparisons of a type, as PostgreSQL names their functions.

Pure: no I/O. A key turns a datum into what Python compares as the server compares the value itself.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, TypeAlias

from cdc.operators.builtins import Builtin

__all__ = ["Compare", "Key", "compared_by", "comparisons"]

Key: TypeAlias = Callable[[Any], Any]
Compare: TypeAlias = Callable[[Any, Any], bool]

_COMPARES: dict[str, Compare] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}


def comparisons(
    name: str, left: str, right: str | None = None, *, keys: tuple[Key, Key] | None = None, equality: bool = False
) -> dict[str, Builtin]:
    """`=`, `<>`, `<`, `<=`, `>` and `>=` of two types.

    Args:
        name: the functions' name with `{}` in the place of `eq`, `ne`, `lt`, `le`, `gt` and `ge`.
        left: name of the left type.
        right: name of the right one; None for the same.
        keys: what the datums of the left and of the right are compared by; None compares them as they are.
        equality: whether hashables of `Equality` decide `=`, too.
    """
    types = f"({left}, {right or left})"
    return {
        name.format(word) + types: Builtin(
            compare if keys is None else compared_by(compare, *keys), equality=equality and word == "eq"
        )
        for word, compare in _COMPARES.items()
    }


def compared_by(compare: Compare, left: Key, right: Key) -> Compare:
    """The comparison of two keys."""
    return lambda one, two: compare(left(one), right(two))
