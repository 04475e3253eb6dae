"""How the brokers are reached: what each of our Kafka clients is made with, and why one may not in.

Every client goes through here, so that there is one place where secrets are handed over.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

from aiokafka.conn import AIOKafkaConnection, create_conn
from aiokafka.errors import (
    IllegalSaslStateError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest

from stream.settings import Settings
from stream.tokens import Grant, TokenProvider, TokenRefused, shared_provider

_ASKED_WITHIN_MS = 5_000
_NOT_LET_IN = (SaslAuthenticationFailed, UnsupportedSaslMechanismError, IllegalSaslStateError)


class AccessRefused(RuntimeError):
    """A broker answers and will not have us, or we not it; the text names the settings to look at.

    Waiting does not help, and a broker that counts failed logins may lock the user out.
    """


def client_options(settings: Settings) -> dict[str, Any]:
    """Return what every aiokafka client is made with: servers, protocol, credentials.

    Files are read now: a client keeps what it was made with. Raises AccessRefused when a
    certificate, key or password file cannot be used (any more).
    """
    options: dict[str, Any] = {
        "bootstrap_servers": settings.broker,
        "security_protocol": settings.security_protocol,
        "ssl_context": ssl_context(settings),
    }
    if settings.uses_sasl:
        options["sasl_mechanism"] = settings.sasl_mechanism
    if settings.uses_tokens:
        options["sasl_oauth_token_provider"] = token_provider(settings)
    elif settings.uses_sasl:
        options["sasl_plain_username"] = settings.sasl_username
        options["sasl_plain_password"] = secret(settings, "sasl_password")
    return options


def secret(settings: Settings, name: str) -> str:
    """Return a secret in clear; raises AccessRefused when its file cannot be read."""
    try:
        return settings.secret(name)
    except ValueError as error:
        raise AccessRefused(f"setting {error}") from None


def token_provider(settings: Settings) -> TokenProvider:
    """Return where a client gets its tokens: the same for all clients of the process."""
    file = settings.oauth_client_secret_file
    return shared_provider(
        Grant(
            url=settings.oauth_token_url,
            client_id=settings.oauth_client_id,
            client_secret=file or settings.oauth_client_secret.get_secret_value(),
            scope=settings.oauth_scope,
            audience=settings.oauth_audience,
            ca_file=settings.oauth_ca_file,
            extensions=tuple(sorted(settings.oauth_extensions.items())),
        )
    )


def ssl_context(settings: Settings) -> ssl.SSLContext | None:
    """Return how to speak TLS, None where the settings ask for none; raises AccessRefused."""
    if not settings.uses_tls:
        return None
    try:
        context = ssl.create_default_context(cafile=settings.ssl_ca_file)
    except (OSError, ssl.SSLError) as error:
        raise AccessRefused(f"setting ssl_ca_file={settings.ssl_ca_file}: {error}") from None
    context.check_hostname = settings.ssl_check_hostname
    if settings.ssl_cert_file:
        # An empty password, and not None: OpenSSL would ask for one at the terminal.
        lock = secret(settings, "ssl_key_password")
        try:
            context.load_cert_chain(settings.ssl_cert_file, settings.ssl_key_file, lock)
        except (OSError, ssl.SSLError) as error:
            raise AccessRefused(
                f"settings ssl_cert_file={settings.ssl_cert_file}, "
                f"ssl_key_file={settings.ssl_key_file}, ssl_key_password: {error}"
            ) from None
    return context


async def refusal(settings: Settings) -> AccessRefused | None:
    """Ask each server whether it lets us in; None when one does, or when none says no.

    aiokafka's clients only say that they could not connect, whatever the reason.
    """
    found: AccessRefused | None = None
    try:
        options = client_options(settings)
    except AccessRefused as error:
        return error
    for server in options.pop("bootstrap_servers").split(","):
        host, _, port = server.strip().rpartition(":")
        try:
            connection = await create_conn(
                host.strip("[]"), int(port), request_timeout_ms=_ASKED_WITHIN_MS, **options
            )
        except _NOT_LET_IN as error:
            found = AccessRefused(_login_refused(server, settings, type(error).__name__))
        except TokenRefused as error:
            return AccessRefused(
                f"no token for user {settings.oauth_client_id!r}: {error}: see settings "
                "oauth_token_url, oauth_client_id, oauth_client_secret"
            )
        except ssl.SSLCertVerificationError as error:
            found = AccessRefused(
                f"broker {server}: its certificate is not trusted ({error}): "
                "see settings ssl_ca_file and ssl_check_hostname"
            )
        except (KafkaError, OSError, ValueError, asyncio.TimeoutError):
            continue  # away, or not to be told from away
        else:
            is_in = not settings.uses_tokens or await _answers(connection)
            connection.close()
            if is_in:
                return None
            found = AccessRefused(_login_refused(server, settings, "token refused"))
    return found


async def _answers(connection: AIOKafkaConnection) -> bool:
    """True when a broker that has been given a token answers.

    One that refuses it says so in a challenge (RFC 7628, 3.2.2) that the client takes for success,
    and hangs up at the next request.
    """
    try:
        await connection.send(MetadataRequest([]))
    except (KafkaError, OSError, asyncio.TimeoutError):
        return False
    return True


def _login_refused(server: str, settings: Settings, reason: str) -> str:
    user, see = settings.sasl_username, "sasl_username, sasl_password, sasl_mechanism"
    if settings.uses_tokens:
        user, see = settings.oauth_client_id, "oauth_scope, oauth_audience, sasl_mechanism"
    return (
        f"broker {server} refuses user {user!r} by {settings.sasl_mechanism} "
        f"({reason}): see settings {see}"
    )
