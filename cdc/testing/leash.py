"""The sandbox's end of the line to its guardian process.

Starts the guardian, sends it commands and reads its answers. The guardian ends when this end of the line closes, so
that nothing stays behind however this process ends. Touches that one process only.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cdc.errors import CdcError, ConfigurationError

__all__ = ["Leash", "SandboxError"]

_GUARDIAN = Path(__file__).with_name("guardian.py")
_STOP_SECONDS = 30.0


class SandboxError(CdcError):
    """The sandbox's server cannot be started, restarted or reached."""


class Leash:
    """One guardian process, held by the process that started it.

    A forked child has no part in it: there, `close` only lets go of the child's own copies of the pipes.

    Args:
        plan: what the guardian builds and runs; its keys are those that `cdc.testing.guardian` reads.

    Raises:
        ConfigurationError: the server refuses a setting.
        SandboxError: the server cannot be started for another reason.
    """

    def __init__(self, plan: Mapping[str, Any]) -> None:
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self.facts: dict[str, Any] = {}
        self._guardian = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_GUARDIAN), str(self._owner)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            cwd="/", env=_environment(), start_new_session=True,
        )  # fmt: skip
        self.facts = self._started(json.dumps(plan))

    @property
    def pid(self) -> int:
        """The process id of the guardian."""
        return self._guardian.pid

    @property
    def alive(self) -> bool:
        """Tell whether the guardian runs."""
        return self._guardian.poll() is None

    def ask(self, line: str) -> dict[str, Any]:
        """Send one line and return the guardian's answer, with the keys `folder`, `data`, `port` and `pid`.

        Raises:
            ConfigurationError: the server refuses a setting.
            SandboxError: the guardian reports a failure or is gone, or this process is a forked child.
        """
        if os.getpid() != self._owner:
            raise SandboxError(f"Only process {self._owner}, which started the sandbox, can command it.")
        with self._lock:
            self._send(line)
            answer = self._guardian.stdout.readline() if self._guardian.stdout else b""
        if not answer:
            raise SandboxError("The sandbox's guardian process has ended. Start a new sandbox.")
        facts: dict[str, Any] = json.loads(answer)
        if facts["event"] == "failed":
            raise _failure(facts["reason"])
        return facts

    def close(self) -> None:
        """End the guardian, its server and its folder, and wait for that. Can be called again."""
        if os.getpid() == self._owner and self.alive:
            self._send("stop")
        for pipe in (self._guardian.stdin, self._guardian.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        if os.getpid() == self._owner:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._guardian.wait(_STOP_SECONDS)
                self._delete()

    def _started(self, plan: str) -> dict[str, Any]:
        try:
            return self.ask(plan)
        except BaseException:
            self.close()
            raise

    def _delete(self) -> None:
        """Delete the folder that a killed guardian leaves; its server ends at the same time and may still write."""
        folder = Path(self.facts["folder"]) if self.facts else None
        for _ in range(50):
            if folder is None or not folder.exists():
                return
            shutil.rmtree(folder, ignore_errors=True)
            time.sleep(0.05)

    def _send(self, line: str) -> None:
        # A closed pipe shows itself in the answer, which is then empty.
        if self._guardian.stdin is not None and not self._guardian.stdin.closed:
            with contextlib.suppress(OSError):
                self._guardian.stdin.write(line.encode() + b"\n")
                self._guardian.stdin.flush()


def _environment() -> dict[str, str]:
    """The environment of the server: nothing of the caller's PG* variables, and no other language than C."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return kept | {"LC_ALL": "C", "TZ": "UTC"}


def _failure(reason: str) -> CdcError:
    """The error for a failed start: the user's mistake when the server names a setting that it refuses."""
    refused = re.findall(r"(?:LOG|FATAL|HINT|ERROR): +(.*?)(?: in file \".*)?$", reason, re.MULTILINE)
    if any(line.endswith("contains errors") for line in refused):
        complaints = [line for line in refused if not line.endswith("contains errors")]
        return ConfigurationError("PostgreSQL refuses a setting of the sandbox: " + "; ".join(complaints))
    return SandboxError(
        f"The sandbox's PostgreSQL cannot be used. {reason}\n"
        "Check the settings given to the sandbox, the free space of the temporary folder, and that CDC_PG_BIN or "
        "Sandbox(bin=…) names a complete installation."
    )
