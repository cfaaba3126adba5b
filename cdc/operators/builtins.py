"""What a function of PostgreSQL is here, and tables of them: signature in the catalog → what it computes.

Pure: no I/O. A signature is `name(argument types)`, as `pg_proc.proname` and `pg_get_function_identity_arguments`
spell it: `int4eq(integer, integer)`, `lower(text)`. Operators are found by their functions. Names stay what they are
from version to version, and the tests hold each one against every supported server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Builtin", "Table"]


@dataclass(frozen=True, slots=True)
class Builtin:
    """A function of PostgreSQL that is evaluated here.

    Attributes:
        call: takes datums (with the `Context` before them when `contextual`) and gives a datum, None for NULL.
            Raises `Failed` where PostgreSQL raises, `Undecided` where Python cannot tell.
        strict: whether a NULL argument gives NULL without a call.
        contextual: whether it needs the context.
        timed: whether its result depends on the moment.
        equality: whether it is a type's `=`, so that equal hashables of `Equality` decide it.
        ordered: whether it needs the order of texts, so that it is `Undecided` but under a `CODE_POINT` collation.
        refuses: takes the arguments, those that are constants as their datums and others as `UNSENT`, and says what
            of them is not evaluated here, so that it is refused before there is a row; None when there is nothing.
    """

    call: Callable[..., object]
    strict: bool = True
    contextual: bool = False
    timed: bool = False
    equality: bool = False
    ordered: bool = False
    refuses: Callable[[Sequence[object]], str | None] | None = None


Table = Mapping[str, Builtin]
"""Functions by signature. Each family file has one, and `tables` lists them."""
