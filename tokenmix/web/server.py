"""A server of a few files in memory, for this machine: it answers nobody who asks under a foreign name."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import ipaddress
import os
import re
import socket
import sys
import time
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote

from tokenmix_runtime.shortage import shortage

# Not the system's table: some systems call scripts plain text, and browsers then refuse them.
_TYPES = {
    **dict.fromkeys((".js", ".mjs"), "text/javascript; charset=utf-8"),
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; "
    "style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # With these two a page may use threads.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


REQUEST_S, ANSWER_S = 30.0, 300.0  # a request may take to come (the wait for the next one too), an answer to be read
PART_BYTES = 1 << 16  # of an answer that are sent at once: of a slow reader the silence counts, not the whole answer
CONNECTIONS = 64  # at once; further ones are closed
_PAUSE_S = 0.1  # before another connection is taken where there are no more descriptors or threads
_SCARCE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[0-9a-z.-]+)(?::([0-9]{1,5}))?", re.IGNORECASE | re.ASCII)


class PageServer(ThreadingHTTPServer):
    """Serves ``files`` by name, ``index.html`` at ``/``, and nothing else; it listens once it is made.

    A request must name this machine in its ``Host``: a page elsewhere whose name was pointed here (DNS rebinding) gets
    no answer. Bound to a loopback address that is ``localhost`` or a loopback address; otherwise any address, or the
    name that was given.

    It stays of use to others whatever one asks: a request must have come after `REQUEST_S` and its answer be read after
    `ANSWER_S`, however slowly bytes trickle, and no more than `CONNECTIONS` are open at once.

    Args:
        files: Name -> content. The disk is not read, so no path can lead elsewhere.
        host: Name or address to listen on.
        port: 0 takes a free one.

    Raises:
        ValueError: The port is taken or not allowed, or the host is not this machine.

    Examples:
        >>> with PageServer({"index.html": b"<p>Hello</p>"}) as server:
        ...     print(server.url)
        http://127.0.0.1:.../
    """

    daemon_threads = True
    allow_reuse_address = os.name != "nt"  # Windows would give a port to two at once

    def __init__(self, files: Mapping[str, bytes], host: str = "127.0.0.1", port: int = 0) -> None:
        self.files = {f"/{name}": content for name, content in files.items()}
        self.files["/"] = self.files["/index.html"]
        self.tags = {name: f'"{hashlib.sha256(content).hexdigest()[:32]}"' for name, content in self.files.items()}
        self.host = host
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.deadlines: dict[socket.socket, float] = {}  # of the open connections, by the monotonic clock
        if not 0 <= port < 65536:
            raise ValueError(f"port must be from 0 to 65535, not {port}")
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                hint = "choose another with --port; --port 0 takes a free one"
                raise ValueError(f"port {port} of {host} is in use: {hint}") from None
            raise ValueError(f"cannot listen on {host}, port {port}: {error.strerror or error}") from None

    @property
    def url(self) -> str:
        """The address of the page."""
        name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(str(ipaddress_or_none(self.host)), self.host)
        return f"http://{f'[{name}]' if ':' in name else name}:{self.server_port}/"

    def knows(self, host: str) -> bool:
        """Whether the value of a ``Host`` header means this server."""
        asked = _HOST.fullmatch(host)
        if asked is None or int(asked[2] or 80) != self.server_port:
            return False
        name = asked[1].lower().strip("[]")
        if name in ("localhost", self.host.lower()):
            return True
        address = ipaddress_or_none(name)
        local = ipaddress.ip_address(str(self.server_address[0])).is_loopback
        return address is not None and (address.is_loopback or not local)

    def get_request(self) -> tuple[socket.socket, Any]:
        """The next connection; without descriptors it waits a little, or the ready socket would be asked at once."""
        try:
            return super().get_request()
        except OSError as error:
            if error.errno in _SCARCE:
                time.sleep(_PAUSE_S)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread of its own, unless there are too many."""
        if len(self.deadlines) >= CONNECTIONS:
            self.shutdown_request(request)
            return
        self.deadlines[request] = time.monotonic() + REQUEST_S
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection, however its request ended."""
        self.deadlines.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Called several times a second: end what takes too long; its thread then finds the connection closed."""
        now = time.monotonic()
        for connection, deadline in list(self.deadlines.items()):
            if now > deadline:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that closes its connection early is no error; a thread that cannot be started is told in a line."""
        error = sys.exception()
        if error is not None and (lack := shortage(error)):
            print(f"a request was not answered: {lack}", file=sys.stderr)
            time.sleep(_PAUSE_S)
        elif not isinstance(error, ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


def ipaddress_or_none(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a text is, if it is one."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "tokenmix", ""
    timeout = REQUEST_S  # of silence

    def handle_one_request(self) -> None:
        """The clock starts anew for each."""
        self._allow(REQUEST_S)
        super().handle_one_request()

    def _allow(self, seconds: float) -> None:
        if self.connection in self.server.deadlines:
            self.server.deadlines[self.connection] = time.monotonic() + seconds

    def do_GET(self) -> None:
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or not self.server.knows(hosts[0]):
            return self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
        path = unquote(self.path.split("?")[0])
        if path not in self.server.files:
            return self.send_error(HTTPStatus.NOT_FOUND)
        tag = self.server.tags[path]
        if self.headers.get("If-None-Match") == tag:
            return self._answer(HTTPStatus.NOT_MODIFIED, tag=tag)
        suffix = PurePosixPath("index.html" if path == "/" else path).suffix
        kind = _TYPES.get(suffix, "application/octet-stream")
        self._answer(HTTPStatus.OK, self.server.files[path], kind, tag)

    do_HEAD = do_GET

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """A plain page that repeats nothing of the request."""
        if code == HTTPStatus.NOT_IMPLEMENTED:  # what the base class makes of a method that it has no function for
            code = HTTPStatus.METHOD_NOT_ALLOWED
        self.close_connection = True
        self._answer(HTTPStatus(code), f"{int(code)} {HTTPStatus(code).phrase}\n".encode(), "text/plain; charset=utf-8")

    def _answer(self, status: HTTPStatus, content: bytes = b"", kind: str = "", tag: str = "") -> None:
        self._allow(ANSWER_S)
        self.send_response(status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        if tag:
            self.send_header("ETag", tag)
        if self.close_connection:
            self.send_header("Connection", "close")
        if status != HTTPStatus.NOT_MODIFIED:
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            for begin in range(0, len(content), PART_BYTES):
                self.wfile.write(content[begin : begin + PART_BYTES])

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged."""
