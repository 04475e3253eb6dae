"""Production mode: why settings are not fit to run a shop with."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stream.settings import Settings


def reasons_against(settings: Settings) -> list[str]:
    """Return every reason, each beginning with the setting and its value; empty when there is none.

    A broker on loopback is no exception: what is tried there with production on is what runs
    elsewhere.
    """
    return [
        f"{name}={value}: {why}"
        for name, value, why in (*_of_brokers(settings), *_of_others(settings))
    ]


def _of_brokers(settings: Settings) -> list[tuple[str, object, str]]:
    found: list[tuple[str, object, str]] = []
    if not settings.uses_tls:
        found.append(
            (
                "security_protocol",
                settings.security_protocol,
                "what shoppers do would travel in clear; use SSL or SASL_SSL",
            )
        )
    elif not settings.ssl_check_hostname:
        found.append(("ssl_check_hostname", False, "any holder of a certificate could be a broker"))
    if settings.security_protocol == "SSL" and not settings.ssl_cert_file:
        found.append(
            (
                "security_protocol",
                "SSL",
                "the brokers would not know who we are; set ssl_cert_file, or use SASL_SSL",
            )
        )
    if settings.uses_tokens and not settings.oauth_token_url.startswith("https:"):
        found.append(
            ("oauth_token_url", settings.oauth_token_url, "a secret would travel in clear; https")
        )
    return found


def _of_others(settings: Settings) -> list[tuple[str, object, str]]:
    from models.weights import is_pinned  # it brings numpy, for which few commands have a use

    found: list[tuple[str, object, str]] = []
    listens = settings.metrics_port and not _is_loopback(settings.metrics_host)
    if listens and not settings.metrics_public:
        found.append(
            (
                "metrics_host",
                settings.metrics_host,
                "others could read metrics and health; set metrics_public if they shall",
            )
        )
    if not settings.encoder_sha256 and not is_pinned(settings.encoder):
        found.append(
            ("encoder", settings.encoder, "nothing says what its files must be; set encoder_sha256")
        )
    return found


def _is_loopback(host: str) -> bool:
    """True for this machine alone; a name may mean any address, but for the one that never does."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
