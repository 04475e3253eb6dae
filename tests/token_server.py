"""A token server on loopback, by the client credentials grant: real HTTP, and TLS if wanted."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote


class TokenServer(ThreadingHTTPServer):
    """Gives `token-1`, `token-2`, ... to those who know the secret; ``status`` has it fail."""

    def __init__(self, client_id: str, secret: str, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.client_id, self.secret = client_id, secret
        self.life_s: object = 100
        self.status = 200
        self.body: bytes | None = None
        self.forms: list[dict[str, list[str]]] = []
        self._scheme = "https" if tls else "http"
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True)

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.server_address[1]}/oauth2/token"

    def token(self) -> str:
        """Return the token to give next; another kind of server has another kind."""
        return f"token-{len(self.forms)}"

    def answer(self, form: dict[str, list[str]], authorization: str) -> tuple[int, bytes]:
        self.forms.append(form)
        if self.body is not None or self.status != 200:
            return self.status, self.body or b"{}"
        client, _, secret = base64.b64decode(authorization.removeprefix("Basic ")).partition(b":")
        if (unquote(client.decode()), unquote(secret.decode())) != (self.client_id, self.secret):
            return 401, b'{"error": "invalid_client"}'
        said: dict[str, Any] = {"access_token": self.token(), "token_type": "Bearer"}
        return 200, json.dumps({**said, "expires_in": self.life_s}).encode()


class _Handler(BaseHTTPRequestHandler):
    server: TokenServer

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["Content-Length"])).decode()
        status, body = self.server.answer(parse_qs(raw), self.headers["Authorization"])
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving(server: TokenServer) -> Iterator[TokenServer]:
    """Answer until the block ends."""
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
