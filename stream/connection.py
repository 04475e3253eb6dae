"""How the brokers are reached: what each of our Kafka clients is made with, and why one may not in.

Every client goes through here, so that there is one place where secrets are handed over.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

from aiokafka.conn import create_conn
from aiokafka.errors import (
    IllegalSaslStateError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)

from stream.settings import Settings

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
        options["sasl_plain_username"] = settings.sasl_username
        options["sasl_plain_password"] = password(settings)
    return options


def password(settings: Settings) -> str:
    """Return the user's password in clear; raises AccessRefused when its file cannot be read."""
    try:
        return settings.password()
    except ValueError as error:
        raise AccessRefused(f"setting {error}") from None


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
        secret = settings.ssl_key_password.get_secret_value()
        try:
            # An empty password, and not None: OpenSSL would ask for one at the terminal.
            context.load_cert_chain(settings.ssl_cert_file, settings.ssl_key_file, secret)
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
            found = AccessRefused(_login_refused(server, settings, error))
        except ssl.SSLCertVerificationError as error:
            found = AccessRefused(
                f"broker {server}: its certificate is not trusted ({error}): "
                "see settings ssl_ca_file and ssl_check_hostname"
            )
        except (KafkaError, OSError, ValueError, asyncio.TimeoutError):
            continue  # away, or not to be told from away
        else:
            connection.close()
            return None
    return found


def _login_refused(server: str, settings: Settings, error: KafkaError) -> str:
    return (
        f"broker {server} refuses user {settings.sasl_username!r} by {settings.sasl_mechanism} "
        f"({type(error).__name__}): see settings sasl_username, sasl_password, sasl_mechanism"
    )
