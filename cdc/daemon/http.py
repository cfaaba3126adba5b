"""The daemon's HTTP server: `/healthz`, for whoever watches the process.

Touches one listening socket and threads of its own. It asks for the health and for nothing else, so that no request
can make the consumer wait.
"""

from __future__ import annotations

import errno
import json
import socket
import socketserver
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from cdc import Colour, Health
from cdc.daemon.config import HttpConfig
from cdc.errors import ConfigurationError

__all__ = ["HealthServer"]

_TEXT = "cdc: change data capture for PostgreSQL. /healthz says whether it is well.\n"
_PATIENCE = 5.0
"""Seconds that a client may take to send its request."""
_POLL = 0.2


class HealthServer:
    """Answers on the configured address from `with` to its end.

    Args:
        config: the address; port 0 takes a free one.
        health: asked at each request; must not wait.

    Raises ConfigurationError when the address cannot be had.
    """

    def __init__(self, config: HttpConfig, health: Callable[[], Health]) -> None:
        class Handler(_Handler):
            ask = staticmethod(health)

        family = _Server6 if ":" in config.host else _Server
        try:
            self._server = family((config.host, config.port), Handler)
        except OSError as error:
            raise _refused(config, error) from None
        self._thread = threading.Thread(target=self._server.serve_forever, args=(_POLL,), name="cdc-http", daemon=True)

    @property
    def url(self) -> str:
        """Where `/healthz` answers."""
        host, port = self._server.server_address[:2]
        host = host.decode() if isinstance(host, bytes) else host
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/healthz"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


def _refused(config: HttpConfig, error: OSError) -> ConfigurationError:
    if error.errno == errno.EADDRINUSE:
        return ConfigurationError(f"http.port: {config.port} on {config.host} is in use: choose another port")
    if error.errno == errno.EACCES:
        return ConfigurationError(f"http.port: this user may not listen on {config.port}: choose a port above 1023")
    return ConfigurationError(f"http.host: cannot listen on {config.host}, port {config.port}: {error.strerror}")


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:
        """Bind, without the look-up of the host's name that HTTPServer adds: it may wait for DNS."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is no news."""


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(BaseHTTPRequestHandler):
    timeout = _PATIENCE
    protocol_version = "HTTP/1.1"
    ask: Callable[[], Health]

    def do_GET(self) -> None:
        """Answer, with a body."""
        path = self.path.partition("?")[0]
        if path == "/healthz":
            health = self.ask()
            well = health.colour is not Colour.RED
            status = HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE
            self._answer(status, "application/json", json.dumps(health.to_dict()) + "\n")
        elif path == "/":
            self._answer(HTTPStatus.OK, "text/plain; charset=utf-8", _TEXT)
        else:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", "not found\n")

    do_HEAD = do_GET

    def _refuse(self) -> None:
        self.close_connection = True  # Its body, if any, is not read.
        self._answer(HTTPStatus.METHOD_NOT_ALLOWED, "text/plain; charset=utf-8", "only GET and HEAD\n")

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _refuse

    def _answer(self, status: HTTPStatus, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def version_string(self) -> str:
        """What the Server header says."""
        return "cdc"

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged: a probe comes every few seconds."""
