"""What a collation and an encoding let Python say of texts: equality, order, case and search.

Pure: no I/O. Under a deterministic collation texts are equal when their bytes are. Only `Collation.CODE_POINT` has an
order that Python knows, since the order of UTF-8's bytes is that of code points. In a database of another encoding
what is beyond ASCII may have been converted on its way here, so nothing is said of it.
The manual: "Collation Support".
"""

from __future__ import annotations

from collections.abc import Callable

from cdc.operators.context import Collation, Context, Undecided

__all__ = ["certain", "compare", "encoded", "lowered", "raised", "same"]

_LOWER = str.maketrans({chr(code): chr(code + 32) for code in range(ord("A"), ord("Z") + 1)})
_UPPER = str.maketrans({chr(code): chr(code - 32) for code in range(ord("a"), ord("z") + 1)})


def certain(context: Context, *texts: str) -> None:
    """Whether the texts can be compared and searched byte by byte. Raises Undecided when they cannot."""
    if context.collation is Collation.NONDETERMINISTIC:
        raise Undecided("texts are compared under a nondeterministic collation")
    encoded(context, *texts)


def encoded(context: Context, *texts: str) -> None:
    """Whether the texts are the server's own, character by character. Raises Undecided when they may not be."""
    if not context.utf8 and not all(map(str.isascii, texts)):
        raise Undecided("a text beyond ASCII in a database whose encoding is not UTF8")


def same(context: Context, left: str, right: str) -> bool:
    """`=` of two texts. Raises Undecided."""
    if context.collation is Collation.NONDETERMINISTIC or not context.utf8:
        certain(context, left, right)
    return left == right


def compare(context: Context, left: str, right: str) -> int:
    """Less than, equal to or greater than 0, as the collation orders the texts. Raises Undecided.

    Whether equal texts are equal is known under every deterministic collation.
    """
    certain(context, left, right)
    if left == right:
        return 0
    if context.collation is not Collation.CODE_POINT:
        raise Undecided("texts are ordered under a collation that only the server knows")
    return -1 if left < right else 1


def lowered(context: Context, text: str) -> str:
    """lower(text). Raises Undecided."""
    return _cased(context, text, _LOWER, str.lower, "I")


def raised(context: Context, text: str) -> str:
    """upper(text). Raises Undecided."""
    return _cased(context, text, _UPPER, str.upper, "i")


def _cased(context: Context, text: str, ascii_only: dict[int, str], change: Callable[[str], str], dotted: str) -> str:
    """Under a linguistic collation letters beyond ASCII are the server's secret, and so is i when it may be Turkish."""
    encoded(context, text)
    if context.collation is Collation.CODE_POINT:
        return text.translate(ascii_only)
    if not text.isascii():
        raise Undecided("the case of letters beyond ASCII under a collation that only the server knows")
    if dotted in text and not context.plain_case:
        raise Undecided(f"the other case of {dotted} under a collation whose language is not known")
    return change(text)
