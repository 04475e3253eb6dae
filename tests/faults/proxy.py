"""A TCP proxy between the workers and a broker: slow, half-open, or cutting connections."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time


class Proxy:
    """Forwards ``port`` to ``target``; what it does to the bytes can be changed at any time.

    ``delay_s`` holds every piece back; ``silent`` swallows what comes while connections stay open,
    as a cable that was pulled; ``cut`` resets every connection there is.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.delay_s = 0.0
        self.silent = False
        self.n_connections = 0
        self._open: set[socket.socket] = set()
        self._stop = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Reset every connection."""
        for sock in list(self._open):
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._stop.set()
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while not self._stop.is_set():
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target), timeout=5)
            except OSError:
                continue
            self.n_connections += 1
            threading.Thread(target=self._forward, args=(client, server), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        other = {client: server, server: client}
        self._open |= set(other)
        with selectors.DefaultSelector() as selector, contextlib.suppress(OSError):
            for sock in other:
                selector.register(sock, selectors.EVENT_READ)
            while not self._stop.is_set():
                for key, _ in selector.select(0.2):
                    sock = key.fileobj
                    assert isinstance(sock, socket.socket)
                    data = sock.recv(65_536)
                    if not data:
                        return self._end(client, server)
                    if self.delay_s:
                        time.sleep(self.delay_s)
                    if not self.silent:
                        other[sock].sendall(data)
        return self._end(client, server)

    def _end(self, *sockets: socket.socket) -> None:
        for sock in sockets:
            self._open.discard(sock)
            sock.close()
