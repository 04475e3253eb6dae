"""What a Kafka broker says to a client that logs in by OAUTHBEARER: a server on a socket.

It speaks ApiVersions, SaslHandshake, SaslAuthenticate and Metadata, no more. A token that it does
not take is answered as Kafka does (RFC 7628, 3.2.2): by a challenge, and by hanging up at what is
not its answer.
"""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

METADATA, HANDSHAKE, API_VERSIONS, AUTHENTICATE = 3, 17, 18, 36
_VERSIONS = {METADATA: (0, 1), HANDSHAKE: (1, 1), API_VERSIONS: (0, 0), AUTHENTICATE: (0, 0)}


class SaslBroker:
    """Takes tokens that ``takes`` says yes to; ``tokens`` are those that came."""

    def __init__(self, takes: Callable[[str], bool]) -> None:
        self._takes = takes
        self.tokens: list[str] = []
        self.address = ""

    @asynccontextmanager
    async def serving(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[SaslBroker]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        self.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        is_in = False
        try:
            while True:
                (size,) = struct.unpack(">i", await reader.readexactly(4))
                request = await reader.readexactly(size)
                kind, version, number, n_name = struct.unpack(">hhih", request[:10])
                body = request[10 + max(0, n_name) :]
                if kind == AUTHENTICATE:
                    is_in, answer = self._authenticate(body)
                elif kind == METADATA and not is_in:
                    return
                else:
                    answer = _answer(kind, version)
                answer = struct.pack(">i", number) + answer
                writer.write(struct.pack(">i", len(answer)) + answer)
                await writer.drain()
        except asyncio.IncompleteReadError:
            return
        finally:
            writer.close()

    def _authenticate(self, body: bytes) -> tuple[bool, bytes]:
        # A GS2 header, then key=value pairs, each ended by the byte 1.
        pairs = dict(part.split(b"=", 1) for part in body[4:].split(b"\x01")[1:] if part)
        token = pairs[b"auth"].decode().removeprefix("Bearer ")
        self.tokens.append(token)
        is_in = self._takes(token)
        challenge = b"" if is_in else b'{"status":"invalid_token"}'
        return is_in, struct.pack(">hhi", 0, -1, len(challenge)) + challenge


def _answer(kind: int, version: int) -> bytes:
    if kind == API_VERSIONS:
        entries = [struct.pack(">hhh", key, *limits) for key, limits in _VERSIONS.items()]
        return struct.pack(">hi", 0, len(entries)) + b"".join(entries)
    if kind == HANDSHAKE:
        return struct.pack(">hih", 0, 1, len("OAUTHBEARER")) + b"OAUTHBEARER"
    return struct.pack(">ii", 0, 0) if version == 0 else struct.pack(">iii", 0, -1, 0)
