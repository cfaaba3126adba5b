"""Key templates: which keys of a key-value store belong to a row, such as `well:{id}`.

Touches nothing. Values are the server's own text, the same for every programming language; NULL is an empty text.
"""

from __future__ import annotations

import re
from string import Formatter

from cdc.caching.sent_row import SentRow
from cdc.errors import ConfigurationError

__all__ = ["KeyTemplate"]

_GLOB = re.compile(r"([*?\[\]^\\])")


class KeyTemplate:
    """A text with columns in braces; `{{` and `}}` stand for braces themselves.

    Raises ConfigurationError for a text that names no column, or something else than columns.
    """

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise ConfigurationError(f"a key template is text such as 'well:{{id}}', not {text!r}")
        try:
            parts = [(literal, name, form, conversion) for literal, name, form, conversion in Formatter().parse(text)]
        except ValueError as error:
            raise ConfigurationError(f"the key template {text!r} cannot be read: {error}") from None
        if any(name == "" or form or conversion for _, name, form, conversion in parts):
            raise ConfigurationError(f"the key template {text!r}: write columns as {{id}}, without !, : or a number")
        self.text = text
        self.columns = tuple(dict.fromkeys(name for _, name, _, _ in parts if name is not None))
        if not self.columns:
            raise ConfigurationError(f"the key template {text!r} names no column, as in 'well:{{id}}'")
        if not parts[0][0]:
            raise ConfigurationError(
                f"the key template {text!r} begins with a column, so that its keys could be any: begin with text of "
                "its own, as in 'well:{id}'"
            )
        self._parts = [(literal, name) for literal, name, _, _ in parts]

    def key(self, row: SentRow) -> str:
        """The key of a row. Raises KeyError when a column was not sent."""
        return self.of({name: row.text(name) for name in self.columns})

    def of(self, values: dict[str, str | None]) -> str:
        """The key for these texts by column."""
        texts = (literal + ("" if name is None else values[name] or "") for literal, name in self._parts)
        return "".join(texts)

    @property
    def pattern(self) -> str:
        """The glob that every key of the template matches, with the literal text escaped."""
        literals = ((_GLOB.sub(r"\\\1", literal), name) for literal, name in self._parts)
        return "".join(literal + ("" if name is None else "*") for literal, name in literals)

    def __repr__(self) -> str:
        return f"KeyTemplate({self.text!r})"
