"""The keeper of the consumer's process: starts it, ends it, and starts it again when it has ended by itself.

Touches that process and the files of its round.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.chaos.sink import Sink, lines

__all__ = ["Keeper"]

_ROOT = Path(__file__).resolve().parent.parent.parent
_FAREWELL = 25.0
"""Seconds that the consumer may take to end in good order."""
_REST = 0.1
_OUTLIVED = {"retries", "on_error"}
"""Terms with which a handler that raises does not end the consumer."""
_ERROR = re.compile(r"^\w+(?:Error|Failed): .*", re.MULTILINE)


class Keeper:
    """Keeps one consumer running.

    Args:
        folder: of the round's files.
        settings: those of `program`, which are the same in each life.
        troubles: those of the first lives.

    Attributes:
        sink: the file that the consumer appends to.
        ended: the errors by which it ended by itself.
        wrong: what should not have happened, in words.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], troubles: Sequence[Any] = ()) -> None:
        self.sink = folder / "sink.jsonl"
        self.ended: list[str] = []
        self.wrong: list[str] = []
        self._folder, self._settings, self._troubles = folder, settings, list(troubles)
        self._counted = (0, 0)
        self._lives = 0
        self._former = "none"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def has_trouble(self) -> bool:
        """Whether a trouble is still to come."""
        if self._lives > len(self._troubles):
            return False
        trouble = self._troubles[self._lives - 1]
        at = trouble.get("sleep_at", trouble.get("raise_at") if _OUTLIVED & self._settings["terms"].keys() else None)
        return at is None or self.lines() <= at + 1

    @property
    def lives(self) -> int:
        """How often it was started."""
        return self._lives

    def start(self) -> None:
        """Begin the next life."""
        trouble = self._troubles[self._lives] if self._lives < len(self._troubles) else {}
        self._lives += 1
        own = {"sink": str(self.sink), "trouble": trouble, "former": self._former}
        path = self._folder / f"consumer-{self._lives}.json"
        path.write_text(json.dumps(self._settings | own))
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.program", str(path)],
                cwd=_ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0,
            )  # fmt: skip

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._over("killed")

    def stop(self) -> None:
        """SIGTERM; it has to end in good order."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(_FAREWELL)
        except subprocess.TimeoutExpired:
            self.wrong.append(f"the consumer did not end within {_FAREWELL:.0f} s of SIGTERM")
            self.kill()
            return
        if code not in (0, -signal.SIGTERM):  # It may be too young to know what to do with it.
            self.ended.append(self._last_error(code))
        self._over("in order" if code == 0 and "position.not_saved" not in self._text() else "failed")

    def watch(self) -> bool:
        """Whether it runs; when it has ended by itself, note why. It is not started again."""
        if self._process is None:
            return False
        code = self._process.poll()
        if code is None:
            return True
        self.ended.append(self._last_error(code))
        self._over("failed")
        return False

    def ask_where(self) -> None:
        """Have it write into its log where its threads are."""
        if self.watch() and self._process is not None:
            self._process.send_signal(signal.SIGUSR1)
            time.sleep(_REST)

    def revive(self) -> None:
        """Start it when it does not run, as any supervisor would."""
        if self._process is None:
            time.sleep(_REST)
            self.start()

    def tell(self, reason: str) -> None:
        """Write into the sink that the operator knows of missing changes; only while the consumer does not run."""
        assert self._process is None
        Sink(self.sink).write(operator=reason)

    def lines(self) -> int:
        """How many lines the sink has."""
        size = self.sink.stat().st_size if self.sink.exists() else 0
        if size != self._counted[0]:
            content = self.sink.read_bytes()
            self._counted = (len(content), content.count(b"\n"))
        return self._counted[1]

    def read(self) -> list[dict[str, Any]]:
        """The sink's whole lines."""
        return list(lines(self.sink))

    def has(self, text: str) -> bool:
        """Whether the sink has a line with this text."""
        content = self.sink.read_bytes() if self.sink.exists() else b""
        return text.encode() in content

    @property
    def _log(self) -> Path:
        return self._folder / f"consumer-{self._lives}.log"

    def _text(self) -> str:
        return self._log.read_text(errors="replace")

    def _last_error(self, code: int) -> str:
        found = _ERROR.findall(self._text())
        return str(found[-1]) if found else f"exit code {code}"

    def _over(self, how: str) -> None:
        assert self._process is not None
        self._process.wait()
        self._process, self._former = None, how
        if "Traceback (" in self._text():
            self.wrong.append(f"a traceback in {self._log.name}")
