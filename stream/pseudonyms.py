"""Pseudonyms: names of users that tell nobody who they are, by HMAC-SHA-256 under a shop's key.

1. The edge is where events enter. What lies behind it (topics, keys and partitions, state,
   outputs, logs) knows pseudonyms alone; the keys are for the edge and for whoever forgets users.
2. Kafka finds a user's partition by the key of a message, so a pseudonym must be there before the
   message is: in the shop's producer (``Pseudonymiser``, or the same three steps in any language),
   or by ``prefstream pseudonymise``, which copies raw topics into ours.
3. A pseudonym is the key's id, a dot, and the first 128 bits of HMAC-SHA-256(key, user id in UTF-8)
   in base64url: the same user has always the same one, and nobody without the key can try out ids.
4. The shop reads outputs by computing the pseudonym of the user it has before it: nothing is kept
   that leads back.
5. The first key of the file makes pseudonyms; the others are retired, and serve to find what was
   made with them: who declines or is erased is so under every key.
6. A new key means new users to what lies behind: interests begin anew. What was under a retired
   key is erased with ``prefstream forget --key ID``; two profiles are never merged, since that
   would link the two pseudonyms, which is what a rotation is to end.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

#: Of the digest: 128 bits leave no two of any number of users alike.
_DIGEST_BYTES = 16
_KEY_BYTES = 32
_KEY_ID = re.compile("[a-z0-9]{1,16}")
# Put before a session's id, so that it is not the user of the same id.
_SESSION = "session\0"


class BadKeys(ValueError):
    """A file of keys that cannot be used; the text never holds a key."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key and the name it has in pseudonyms."""

    key_id: str
    secret: bytes = field(repr=False)


class Pseudonymiser:
    """Makes pseudonyms of users and sessions."""

    def __init__(self, keys: Sequence[Key]) -> None:
        """The first key is in use, the others are retired."""
        if not keys:
            raise BadKeys("expected at least one key")
        self._keys = tuple(keys)

    @classmethod
    def read(cls, path: Path) -> Pseudonymiser:
        """Read a file of a key a line, ``ID HEX``, newest first; raises BadKeys naming the line."""
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not text"
            raise BadKeys(f"{path}: {reason}") from None
        keys: list[Key] = []
        for number, line in enumerate(lines, start=1):
            if not line.strip() or line.startswith("#"):
                continue
            try:
                keys.append(_key(line))
            except ValueError as error:
                raise BadKeys(f"{path}: line {number}: {error}") from None
        if not keys:
            raise BadKeys(f"{path}: expected a line `ID HEX`, got none")
        if len({key.key_id for key in keys}) < len(keys):
            raise BadKeys(f"{path}: two keys of one id")
        return cls(keys)

    @property
    def key_ids(self) -> list[str]:
        """Return the keys' ids, that in use first."""
        return [key.key_id for key in self._keys]

    def of(self, user_id: str) -> str:
        """Return a user's pseudonym under the key in use."""
        return _pseudonym(self._keys[0], user_id)

    def all_of(self, user_id: str) -> list[str]:
        """Return a user's pseudonyms under every key, that in use first."""
        return [_pseudonym(key, user_id) for key in self._keys]

    def of_session(self, session_id: str) -> str:
        """Return what stands for a session: nobody finds it in a log of the shop's web server."""
        return _pseudonym(self._keys[0], _SESSION + session_id)


def _key(line: str) -> Key:
    key_id, _, digits = line.strip().partition(" ")
    if not _KEY_ID.fullmatch(key_id):
        raise ValueError("expected an id of up to 16 small letters and digits")
    try:
        secret = bytes.fromhex(digits)
    except ValueError:
        # Its text would quote the key.
        raise ValueError(f"the key of {key_id} is not in hex") from None
    if len(secret) < _KEY_BYTES:
        raise ValueError(f"expected {_KEY_BYTES} bytes or more of {key_id}, got {len(secret)}")
    return Key(key_id, secret)


def _pseudonym(key: Key, text: str) -> str:
    digest = hmac.new(key.secret, text.encode(), hashlib.sha256).digest()[:_DIGEST_BYTES]
    return f"{key.key_id}.{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"
