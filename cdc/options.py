"""How the server is asked to stream: streaming of running transactions, two-phase commits, binary cells.

Does no I/O. The manual: "Logical Streaming Replication Parameters".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from cdc.errors import ConfigurationError

__all__ = ["Options"]

_STREAMING = ("on", "off", "parallel")
_FIRST_PARALLEL, _FIRST_TWO_PHASE, _FIRST_FAILOVER = 160000, 150000, 170000


@dataclass(frozen=True, slots=True)
class Options:
    """What a consumer asks for, and where it keeps transactions that have not committed.

    Attributes:
        streaming: `"on"`: the server sends a large transaction while it runs, and it is spooled here; `"off"`: it is
            sent at its commit; `"parallel"` (16 and later): as on, and aborts come with LSN and time.
        two_phase: whether prepared transactions are sent when they are prepared (15 and later).
        binary: whether cells come in the binary form of their types.
        spool_memory: bytes of uncommitted transactions that are kept in memory.
        spool_folder: where larger ones go; None is the system's folder for temporary files.
        failover: whether standbys keep a copy of the slot, to go on with when one takes over (17 and later).
    """

    streaming: str = "on"
    two_phase: bool = False
    binary: bool = False
    spool_memory: int = 16 << 20
    spool_folder: Path | None = None
    failover: bool = False

    def __post_init__(self) -> None:
        if self.streaming not in _STREAMING:
            raise ConfigurationError(f"streaming is 'on', 'off' or 'parallel', not {self.streaming!r}")
        memory = self.spool_memory
        if not isinstance(memory, int) or isinstance(memory, bool) or memory < 0:
            raise ConfigurationError(f"spool_memory is a number of bytes, not {memory!r}; 16 << 20 is 16 MB")
        for name in ("two_phase", "binary", "failover"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigurationError(f"{name} is True or False, not {getattr(self, name)!r}")
        if self.spool_folder is not None and not self.spool_folder.is_dir():
            raise ConfigurationError(f"spool_folder: {self.spool_folder} is not a folder")

    def check(self, server_version: int) -> None:
        """Raise ConfigurationError when a server of this version (180006 is 18.6) does not have what is asked for."""
        if self.streaming == "parallel" and server_version < _FIRST_PARALLEL:
            raise _too_old("streaming='parallel'", 16, server_version, "use streaming='on'")
        if self.two_phase and server_version < _FIRST_TWO_PHASE:
            remedy = "leave it out; a prepared transaction comes when it commits"
            raise _too_old("two_phase=True", 15, server_version, remedy)
        if self.failover and server_version < _FIRST_FAILOVER:
            remedy = "leave it out; when a standby takes over, the slot is made anew behind a gap"
            raise _too_old("failover=True", 17, server_version, remedy)

    def parameters(self, publications: str, messages: bool = False, whole: bool = False) -> str:
        """The options of START_REPLICATION.

        Args:
            publications: the quoted list of their names.
            messages: whether logical messages are wanted.
            whole: whether transactions have to come at their commit this time, without what was rolled back.
        """
        if whole:
            return replace(self, streaming="off").parameters(publications, messages)
        asked = [f"proto_version '{self._protocol}'", f"publication_names {publications}"]
        if self.streaming != "off":
            asked.append(f"streaming '{self.streaming}'")
        if self.two_phase:
            asked.append("two_phase 'on'")
        if self.binary:
            asked.append("binary 'true'")
        if messages:
            asked.append("messages 'true'")
        return ", ".join(asked)

    @property
    def _protocol(self) -> int:
        """The lowest version of the protocol that has what is asked for."""
        if self.streaming == "parallel":
            return 4
        if self.two_phase:
            return 3
        return 1 if self.streaming == "off" else 2


def _too_old(option: str, needed: int, version: int, remedy: str) -> ConfigurationError:
    return ConfigurationError(f"{option} needs PostgreSQL {needed}, and this is {version // 10000}: {remedy}")
