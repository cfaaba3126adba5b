"""A TCP proxy on 127.0.0.1 that a test can cut: every connection through it ends at once."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from contextlib import suppress
from typing import Self


class Proxy:
    """Forwards to `port`; `cut` drops what is connected, `refuse` also what comes next."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._mutex = threading.Lock()
        self._closing = False
        self._refusing = False
        self._silent = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._closing = True
        self._thread.join()
        self.cut()
        self._listener.close()

    @property
    def connections(self) -> int:
        """How many connections go through it now."""
        return len(self._pairs) // 2

    def refuse(self, refusing: bool = True) -> None:
        """Let no new connection through, or let them through again."""
        self._refusing = refusing

    def fall_silent(self) -> None:
        """Forward nothing any more, though every connection stays open."""
        self._silent = True

    def speak(self) -> None:
        """Forward again; what was connected before is dropped."""
        self.cut()
        self._silent = False

    def cut(self) -> None:
        """Drop every connection, without a word, as a network that is gone does at last."""
        with self._mutex:
            for one in list(self._pairs):
                self._drop(one)

    def _drop(self, one: socket.socket) -> None:
        for each in (one, self._pairs.pop(one, None)):
            if each is not None:
                self._pairs.pop(each, None)
                each.close()

    def _run(self) -> None:
        while not self._closing:
            if self._silent:
                time.sleep(0.02)
                continue
            with self._mutex:
                watched = [self._listener, *self._pairs]
            with selectors.DefaultSelector() as selector:
                for each in watched:
                    # `cut` may close it at this very moment, and the number may be another socket's by now.
                    with suppress(OSError, ValueError, KeyError):
                        selector.register(each, selectors.EVENT_READ)
                ready = [key.fileobj for key, _ in selector.select(0.05)]
            with self._mutex:
                for each in ready:
                    self._accept() if each is self._listener else self._forward(each)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        if self._refusing:
            client.close()
            return
        server = socket.create_connection(self._target)
        self._pairs[client], self._pairs[server] = server, client

    def _forward(self, source: socket.socket) -> None:
        if source not in self._pairs:
            return
        try:
            data = source.recv(65536)
            if data:
                self._pairs[source].sendall(data)
                return
        except OSError:
            pass
        self._drop(source)
