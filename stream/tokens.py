"""OAUTHBEARER: tokens by the client credentials grant (RFC 6749), renewed ahead of their end.

All clients of a process share one token: some connect every few seconds, and from two event loops.
A client asks for it whenever it connects; aiokafka does not log in anew on a connection that lives.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from math import inf
from pathlib import Path
from typing import Any
from urllib.parse import quote

from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaError

log = logging.getLogger(__name__)

TIMEOUT_S = 5.0
#: Shares of its life after which a new token is asked for, and after which the old one is dropped.
RENEWED_AFTER, ENDS_AFTER = 0.8, 0.95
#: Of a token whose server does not say (it should): seldom is one given for less.
LIFE_S = 300.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
#: The server will not have us, or is none; all else (a timeout, too many, 5xx) may pass.
_REFUSED = frozenset(range(300, 429)) - {408}


# Errors of Kafka's, since its client takes those for a connection that failed, and tries again.
class TokenRefused(KafkaError):  # type: ignore[misc]
    """The token server says no; waiting does not help."""


class TokenAbsent(KafkaError):  # type: ignore[misc]
    """No token could be had for now."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token is asked for with; ``client_secret`` may be a file, read each time."""

    url: str
    client_id: str
    client_secret: str | Path = field(repr=False)
    scope: str = ""
    audience: str = ""
    ca_file: Path | None = None
    extensions: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Token:
    """A token; times are of the provider's clock."""

    value: str = field(repr=False)
    renew_at_s: float
    ends_at_s: float


class TokenProvider(AbstractTokenProvider):  # type: ignore[misc]
    """Gives a token that is good for a while; one is asked for at a time, in a thread.

    While the server fails, the old token serves to its end, and the server is asked with growing
    pauses.
    """

    def __init__(self, grant: Grant, clock: Callable[[], float] = time.monotonic) -> None:
        self._grant = grant
        self._clock = clock
        self._asking = threading.Lock()
        self._token: Token | None = None
        self._error: KafkaError | None = None
        self._pause_s, self._ask_at_s = 0.0, clock()

    def extensions(self) -> dict[str, str]:
        """Return what goes to the broker beside the token."""
        return dict(self._grant.extensions)

    async def token(self) -> str:
        """Return a token; raises TokenRefused or TokenAbsent."""
        token = self._token
        if token is not None and self._clock() < token.renew_at_s:
            return token.value
        return await asyncio.to_thread(self._renewed)

    def _renewed(self) -> str:
        with self._asking:
            now_s = self._clock()
            # Another thread may have been here meanwhile.
            if (self._token is None or now_s >= self._token.renew_at_s) and now_s >= self._ask_at_s:
                self._ask(now_s)
            if self._token is not None and now_s < self._token.ends_at_s:
                return self._token.value
            assert self._error is not None
            raise self._error

    def _ask(self, now_s: float) -> None:
        try:
            self._token = ask_for_token(self._grant, now_s)
        except (TokenRefused, TokenAbsent) as error:
            self._pause_s = min(max(FIRST_PAUSE_S, 2 * self._pause_s), LONGEST_PAUSE_S)
            self._ask_at_s, self._error = now_s + self._pause_s, error
            left_s = max(0.0, self._token.ends_at_s - now_s) if self._token else 0.0
            log.warning(
                "no new token (%.0f s left of the old one): %s: trying again in %.0f s",
                left_s,
                error,
                self._pause_s,
            )
        else:
            self._pause_s, self._ask_at_s = 0.0, now_s


@cache
def shared_provider(grant: Grant) -> TokenProvider:
    """Return the process's provider of a grant."""
    return TokenProvider(grant)


def ask_for_token(grant: Grant, now_s: float) -> Token:
    """Return a new token; raises TokenRefused or TokenAbsent, without any secret in the text."""
    import httpx  # only those who use tokens wait for it

    form = {"grant_type": "client_credentials", "scope": grant.scope, "audience": grant.audience}
    try:
        with httpx.Client(verify=_trust(grant), timeout=TIMEOUT_S) as client:
            answer = client.post(
                grant.url,
                data={name: value for name, value in form.items() if value},
                # As RFC 6749, 2.3.1, has it: both are encoded as a form's values are.
                auth=(quote(grant.client_id, safe=""), quote(_secret(grant), safe="")),
            )
    except httpx.HTTPError as error:
        raise TokenAbsent(f"{grant.url}: {type(error).__name__}: {error}") from None
    if answer.status_code != httpx.codes.OK:
        refused = answer.status_code in _REFUSED
        kind = TokenRefused if refused else TokenAbsent
        raise kind(f"{grant.url}: status {answer.status_code}{_code_of(answer)}")
    return _read(grant, answer, now_s)


def _read(grant: Grant, answer: Any, now_s: float) -> Token:
    try:
        said = answer.json()
        value, life_s = said["access_token"], float(said.get("expires_in") or LIFE_S)
        # What the broker is sent ends with the byte 1.
        usable = value.isascii() and value.isprintable() and value != "" and 0 < life_s < inf
    except (ValueError, LookupError, TypeError, AttributeError):
        usable = False
    if not usable:
        # Never what came: it may be a token.
        raise TokenAbsent(f"{grant.url}: expected JSON with access_token and expires_in")
    return Token(value, now_s + life_s * RENEWED_AFTER, now_s + life_s * ENDS_AFTER)


def _code_of(answer: Any) -> str:
    """Return the server's code of an error (RFC 6749, 5.2), if it gives one."""
    try:
        code = answer.json()["error"]
    except (ValueError, LookupError, TypeError):
        return ""
    known = isinstance(code, str) and code.isidentifier() and len(code) < 50
    return f" ({code})" if known else ""


def _secret(grant: Grant) -> str:
    if isinstance(grant.client_secret, str):
        return grant.client_secret
    try:
        return grant.client_secret.read_text().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise TokenRefused(f"oauth_client_secret_file={grant.client_secret}: {reason}") from None


def _trust(grant: Grant) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=grant.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise TokenRefused(f"oauth_ca_file={grant.ca_file}: {error}") from None
