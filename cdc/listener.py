"""A listener: whose handler wants the logical messages of which prefixes.

Pure: no I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cdc.errors import ConfigurationError
from cdc.message import Message
from cdc.pattern import shell_pattern
from cdc.subscription import Handler, Subscription
from cdc.terms import Terms

__all__ = ["Listener"]

_REFUSED = {
    "subject": "a message belongs to no table, so nothing says who may read it: only the trusted get messages",
    "filter": "a message has no columns: look into it in the handler",
    "operations": "a message is no change of a row: choose by prefix",
    "accept_undecided": "nothing about a message is ever undecided",
    "snapshot": "messages are not kept in a table: there is nothing to begin with",
}


class Listener(Subscription):
    """One subscriber's interest in logical messages. Has the attributes of every subscription.

    Attributes:
        prefixes: those that it wants: exact, or as a shell matches when `*`, `?` or `[` is in them.
    """

    __slots__ = ("_patterns", "prefixes")

    def __init__(
        self,
        prefixes: Sequence[str],
        handler: Handler,
        options: Mapping[str, Any],
        on_close: Callable[[Subscription], None] | None = None,
    ) -> None:
        """Check what was asked for. Raises ConfigurationError for what messages do not have."""
        if not prefixes or not all(isinstance(prefix, str) and prefix for prefix in prefixes):
            raise ConfigurationError(
                'write @consumer.on_message("outbox"): the prefix has to be named; "*" is every one'
            )
        terms = Terms.of(options)
        for name, reason in _REFUSED.items():
            if options.get(name) not in (None, False):
                raise ConfigurationError(f"on_message takes no {name}: {reason}")
        self.prefixes = tuple(prefixes)
        self._patterns = [shell_pattern(prefix) for prefix in prefixes]
        default = f"messages {self.label} {getattr(handler, '__qualname__', type(handler).__name__)}"
        super().__init__("", "", handler, on_close=on_close, terms=terms, name=options.get("name") or default)

    @property
    def label(self) -> str:
        """The prefixes that it wants."""
        return ", ".join(self.prefixes)

    @property
    def parts(self) -> Sequence[Subscription]:
        """It has no table."""
        return ()

    def hears(self, prefix: str) -> bool:
        """Whether it wants messages of this prefix."""
        return not self.closed and any(pattern.match(prefix) for pattern in self._patterns)

    def link_message(self, message: Message) -> Message:
        """The message for this subscriber; notes that it is delivered now."""
        if message._place is not None:
            return message.seen(self.link(message._place))
        self.delivered += 1
        return message.seen(self._last)

    def __repr__(self) -> str:
        return f"<Listener to messages {self.label}>"
