"""A TCP proxy on 127.0.0.1 that a test can cut, silence, or leave with one end of each connection only."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from contextlib import suppress
from typing import Self


class Proxy:
    """Forwards to `port`; `cut` drops what is connected, `refuse` also what comes next.

    A side that does not read holds up the other side of its own connection only.
    """

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._clients: set[socket.socket] = set()
        self._unsent: dict[socket.socket, bytes] = {}
        self._orphans: list[socket.socket] = []
        self._mutex = threading.Lock()
        self._answers_left: int | None = None
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

    def go_on(self) -> None:
        """Forward again what was held back, on the same connections."""
        self._silent = False

    def speak(self) -> None:
        """Forward again; what was connected before is dropped."""
        self.cut()
        self._silent = False

    def cut(self) -> None:
        """Drop every connection, without a word, as a network that is gone does at last."""
        with self._mutex:
            for one in list(self._pairs):
                self._drop(one)
            for one in self._orphans:
                one.close()
            self._orphans.clear()

    def lose_server(self) -> None:
        """Every connection ends for the server; to the clients they look open, and silent."""
        self._halve(self._clients)

    def lose_server_after(self, answers: int) -> None:
        """Do so when the clients have got so many more answers of the server."""
        self._answers_left = answers

    @property
    def is_about_to_lose(self) -> bool:
        """Whether `lose_server_after` has not come to that yet."""
        return self._answers_left is not None

    def lose_clients(self) -> None:
        """Every connection ends for the clients; to the server they look open, and silent."""
        self._halve(set(self._pairs) - self._clients)

    def _halve(self, kept: set[socket.socket]) -> None:
        with self._mutex:
            self._halve_now(kept)

    def _halve_now(self, kept: set[socket.socket]) -> None:
        """Close what is not kept; what is kept is neither read nor closed until the next `cut`. The mutex is held."""
        for one in kept & set(self._pairs):
            other = self._pairs.pop(one)
            del self._pairs[other]
            self._forget(one, other)
            other.close()
            self._orphans.append(one)

    def _drop(self, one: socket.socket) -> None:
        for each in (one, self._pairs.pop(one, None)):
            if each is not None:
                self._pairs.pop(each, None)
                self._forget(each)
                each.close()

    def _forget(self, *sockets: socket.socket) -> None:
        for each in sockets:
            self._unsent.pop(each, None)
            self._clients.discard(each)

    def _run(self) -> None:
        while not self._closing:
            if self._silent:
                time.sleep(0.02)
                continue
            with selectors.DefaultSelector() as selector:
                with self._mutex:
                    wanted = self._wanted()
                for each, events in wanted.items():
                    # `cut` may close it at this very moment, and the number may be another socket's by now.
                    with suppress(OSError, ValueError, KeyError):
                        selector.register(each, events)
                ready = [(key.fileobj, events) for key, events in selector.select(0.05)]
            with self._mutex:
                for each, events in ready:
                    if each is self._listener:
                        self._accept()
                    elif each in self._pairs:
                        assert isinstance(each, socket.socket)
                        self._serve(each, events)

    def _wanted(self) -> dict[socket.socket, int]:
        """Who is watched for what; a side whose other one has not taken everything yet is not read."""
        wanted = {self._listener: selectors.EVENT_READ}
        for each, other in self._pairs.items():
            reads = 0 if other in self._unsent else selectors.EVENT_READ
            events = reads | (selectors.EVENT_WRITE if each in self._unsent else 0)
            if events:
                wanted[each] = events
        return wanted

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        if self._refusing:
            client.close()
            return
        try:
            server = socket.create_connection(self._target)
        except OSError:  # It is down.
            client.close()
            return
        for each in (client, server):
            each.setblocking(False)
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._clients.add(client)
        self._pairs[client], self._pairs[server] = server, client

    def _serve(self, each: socket.socket, events: int) -> None:
        try:
            if events & selectors.EVENT_WRITE:
                self._send(each, self._unsent.pop(each))
            if events & selectors.EVENT_READ:
                data = each.recv(65536)
                if not data:
                    self._drop(each)
                elif self._is_last_answer(each):
                    self._halve_now(set(self._clients))
                else:
                    self._send(self._pairs[each], data)
        except BlockingIOError:
            pass
        except OSError:
            self._drop(each)

    def _is_last_answer(self, each: socket.socket) -> bool:
        """Whether it is time to lose the server, now that it has said something."""
        if self._answers_left is None or each in self._clients:
            return False
        self._answers_left = self._answers_left - 1 if self._answers_left > 0 else None
        return self._answers_left is None

    def _send(self, each: socket.socket, data: bytes) -> None:
        """Send what fits; the rest waits."""
        with suppress(BlockingIOError):
            data = data[each.send(data) :]
        if data:
            self._unsent[each] = data
