"""Regular expressions: `~`, `~*`, `!~` and `!~*`, of the part of PostgreSQL's dialect that is certain.

Pure: no I/O. A pattern is read by the rules of advanced regular expressions and becomes an automaton without
backtracking: a text is read once, and no pattern can make that slow. Whether anything matches does not depend on what
is greedy. Python's `re` is not used, since it goes back without end for patterns that the server handles with ease, and
differs in `$`, in classes and in brackets. What the automaton does not know is refused by `translate`: back references,
look-around, word boundaries, collating elements, options, and what would be an error.
The manual: "Pattern Matching", POSIX Regular Expressions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from cdc.operators.automata import Automaton, TooWideError
from cdc.operators.builtins import Builtin, Table
from cdc.operators.collating import certain
from cdc.operators.context import Collation, Context, Undecided
from cdc.operators.expressions import Refused, parse
from cdc.values.equality import quoted

__all__ = ["TABLE", "Pattern", "translate"]


class Pattern:
    """A regular expression that is understood.

    Attributes:
        is_local: whether it depends on the collation what it matches beyond ASCII.
        ignores_case: as `~*` does; then the language counts, since an i may be in a range, too.
        is_foreign: whether it ignores the case of letters beyond ASCII.
    """

    def __init__(self, pattern: str, ignores_case: bool) -> None:
        tree, self.is_local, self.is_foreign = parse(pattern, ignores_case)
        self._automaton = Automaton(tree)
        self.ignores_case = ignores_case

    def matches(self, context: Context, text: str) -> bool:
        """Whether it matches anywhere in the text. Raises Undecided."""
        if context.collation is not Collation.CODE_POINT:
            if self.is_foreign:
                raise Undecided("a regular expression that ignores the case of letters beyond ASCII")
            if self.is_local and not text.isascii():
                raise Undecided("a regular expression whose classes only the server knows beyond ASCII")
            if self.ignores_case and not context.plain_case:
                raise Undecided("the other case of i under a collation whose language is not known")
        try:
            return self._automaton.matches(text)
        except TooWideError:
            raise Undecided("a regular expression that takes too long") from None


@lru_cache(maxsize=512)
def translate(pattern: str, *, ignores_case: bool = False) -> Pattern | None:
    """The pattern of `~`, or of `~*`; None when it is not certain that it means the same here.

    Args:
        pattern: an advanced regular expression.
        ignores_case: as `~*` does.
    """
    try:
        return Pattern(pattern, ignores_case)
    except (Refused, TooWideError):
        return None


def _matcher(ignores_case: bool, wanted: bool) -> Callable[[Context, str, str], bool]:
    def call(context: Context, text: str, pattern: str) -> bool:
        certain(context, text, pattern)
        found = translate(pattern, ignores_case=ignores_case)
        if found is None:
            raise Undecided("a regular expression that may mean something else to the server")
        return found.matches(context, text) is wanted

    return call


def _refuses(ignores_case: bool) -> Callable[[Sequence[object]], str | None]:
    def refuses(args: Sequence[object]) -> str | None:
        pattern = args[1]
        if not isinstance(pattern, str) or translate(pattern, ignores_case=ignores_case) is not None:
            return None
        return f"the regular expression {quoted(pattern)}, which may mean something else to the server"

    return refuses


TABLE: Table = {
    f"{prefix}{word}{ending}({kind}, text)": Builtin(
        _matcher(word == "icregex", ending == "eq"), contextual=True, refuses=_refuses(word == "icregex")
    )
    for prefix, kind in (("text", "text"), ("bpchar", "character"), ("name", "name"))
    for word in ("regex", "icregex")
    for ending in ("eq", "ne")
}
