"""What a broker's guarded listener needs: a certificate, users with passwords, and rights.

The guarded listener speaks SASL_SSL with SCRAM; whoever comes by another one is trusted, as the
brokers are among themselves. Nobody comes in by the guarded one without a right of their own.
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trustme
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialDeletion,
    UserScramCredentialUpsertion,
)
from cryptography.hazmat.primitives import serialization
from token_server import TokenServer

from stream.acls import Rule

MECHANISM = "SCRAM-SHA-512"
USER = "prefstream"


class Guard:
    """The authority that signs the broker's certificate, and the one user of the workers."""

    protocol = "SASL_SSL"

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._authority = trustme.CA()
        self._folder = folder
        self.ca_file = folder / "ca.pem"
        self._authority.cert_pem.write_to_path(str(self.ca_file))
        self.password = f"secret-{secrets.token_hex(8)}"

    def lines(self, listener: str) -> list[str]:
        """Return what the broker's settings must say of the guarded listener."""
        name = f"listener.name.{listener.lower()}"
        return [
            *self._logins(name),
            f"{name}.ssl.keystore.type=PEM",
            f"{name}.ssl.keystore.location={self._certificate()}",
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users=User:ANONYMOUS",
        ]

    def _logins(self, name: str) -> list[str]:
        scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        return [
            f"{name}.sasl.enabled.mechanisms={MECHANISM}",
            f"{name}.scram-sha-512.sasl.jaas.config={scram}",
        ]

    def settings(self, **others: str) -> dict[str, str]:
        """Return the environment of a worker that is let in; ``others`` take the place of some."""
        own = {
            "security_protocol": self.protocol,
            "ssl_ca_file": str(self.ca_file),
            **self._login(),
        }
        return {f"PREFSTREAM_{name.upper()}": value for name, value in {**own, **others}.items()}

    def _login(self) -> dict[str, str]:
        return {
            "sasl_mechanism": MECHANISM,
            "sasl_username": USER,
            "sasl_password": self.password,
        }

    def admit(self, broker: str, password: str = "") -> None:
        """Give the user a password."""
        credentials = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        raw = (password or self.password).encode()
        _alter(broker, UserScramCredentialUpsertion(USER, credentials, raw))

    def expel(self, broker: str) -> None:
        """Take the user's password away; who has logged in stays in until the connection ends."""
        _alter(broker, UserScramCredentialDeletion(USER, ScramMechanism.SCRAM_SHA_512))

    def allow_all(self, broker: str, prefix: str) -> None:
        """Give the user every right on topics and groups of a run."""
        for kind in (ResourceType.TOPIC, ResourceType.GROUP):
            _allow(broker, _rule(kind, prefix, AclOperation.ALL, AclPermissionType.ALLOW))
        # What one idempotent producer needs, and who makes topics.
        cluster = AclBinding(
            ResourceType.BROKER,
            "kafka-cluster",
            ResourcePatternType.LITERAL,
            f"User:{USER}",
            "*",
            AclOperation.ALL,
            AclPermissionType.ALLOW,
        )
        _allow(broker, cluster)

    def allow(self, broker: str, rules: Iterable[Rule]) -> None:
        """Give the user these rights and no other."""
        with _admin(broker) as client:
            _finish(client.delete_acls([_of_user()]).values())
            _finish(client.create_acls([_binding(rule) for rule in rules]).values())

    @contextmanager
    def without(self, broker: str, rule: Rule) -> Iterator[None]:
        """Take one of the rights given away for a while."""
        with _admin(broker) as client:
            _finish(client.delete_acls([_any_of(_binding(rule))]).values())
            try:
                yield
            finally:
                _finish(client.create_acls([_binding(rule)]).values())

    @contextmanager
    def denied(self, broker: str, topic: str, operation: AclOperation) -> Iterator[None]:
        """Take one right on one topic (its full name) away for a while."""
        rule = _rule(ResourceType.TOPIC, topic, operation, AclPermissionType.DENY)
        _allow(broker, rule)
        try:
            yield
        finally:
            with _admin(broker) as client:
                _finish(client.delete_acls([_any_of(rule)]).values())

    def _certificate(self) -> Path:
        """Write key and chain as Kafka reads them: in one file, the key as PKCS #8."""
        issued = self._authority.issue_cert("127.0.0.1")
        key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        path = self._folder / "broker.pem"
        path.write_bytes(pem + b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        return path


class TokenGuard(Guard):
    """Lets in by OAUTHBEARER, with tokens of a server of its own.

    The broker takes tokens without a signature, which Kafka has for trying things out, and ends a
    connection when its token does.
    """

    def __init__(self, folder: Path, life_s: int) -> None:
        super().__init__(folder)
        self.server = UnsignedTokens(USER, self.password)
        self.server.life_s = life_s
        self._life_s = life_s

    def _logins(self, name: str) -> list[str]:
        module = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule"
        return [
            f"{name}.sasl.enabled.mechanisms=OAUTHBEARER",
            f"{name}.oauthbearer.sasl.jaas.config={module} required "
            'unsecuredLoginStringClaim_sub="broker";',
            f"{name}.oauthbearer.connections.max.reauth.ms={self._life_s * 1000}",
        ]

    def _login(self) -> dict[str, str]:
        return {
            "sasl_mechanism": "OAUTHBEARER",
            "oauth_token_url": self.server.url,
            "oauth_client_id": USER,
            "oauth_client_secret": self.password,
        }


class UnsignedTokens(TokenServer):
    """Gives JSON Web Tokens without a signature, for the client that asks."""

    def token(self) -> str:
        now_s = time.time_ns() // 10**9
        assert isinstance(self.life_s, int)
        claims = {"sub": self.client_id, "iat": now_s, "exp": now_s + self.life_s}
        return f"{_base64({'alg': 'none'})}.{_base64(claims)}."


def _base64(part: dict[str, object]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")


def _rule(
    kind: ResourceType, name: str, operation: AclOperation, permission: AclPermissionType
) -> AclBinding:
    return AclBinding(
        kind, name, ResourcePatternType.PREFIXED, f"User:{USER}", "*", operation, permission
    )


_KINDS = {"topic": ResourceType.TOPIC, "group": ResourceType.GROUP}
_OPERATIONS = {
    "Read": AclOperation.READ,
    "Write": AclOperation.WRITE,
    "Create": AclOperation.CREATE,
    "Describe": AclOperation.DESCRIBE,
    "DescribeConfigs": AclOperation.DESCRIBE_CONFIGS,
}


def _binding(rule: Rule) -> AclBinding:
    return AclBinding(
        _KINDS[rule.resource],
        rule.name,
        ResourcePatternType.LITERAL,
        f"User:{USER}",
        "*",
        _OPERATIONS[rule.operation],
        AclPermissionType.ALLOW,
    )


def _of_user() -> AclBindingFilter:
    """Return what finds every right of the user."""
    return AclBindingFilter(
        ResourceType.ANY,
        None,
        ResourcePatternType.ANY,
        f"User:{USER}",
        None,
        AclOperation.ANY,
        AclPermissionType.ANY,
    )


def _any_of(rule: AclBinding) -> AclBindingFilter:
    return AclBindingFilter(
        rule.restype,
        rule.name,
        rule.resource_pattern_type,
        rule.principal,
        rule.host,
        rule.operation,
        rule.permission_type,
    )


@contextmanager
def _admin(broker: str) -> Iterator[AdminClient]:
    """Give a client that lives as long as what was asked of it takes."""
    yield AdminClient({"bootstrap.servers": broker})


def _allow(broker: str, rule: AclBinding) -> None:
    with _admin(broker) as client:
        _finish(client.create_acls([rule]).values())


def _alter(broker: str, change: object) -> None:
    with _admin(broker) as client:
        _finish(client.alter_user_scram_credentials([change]).values())


def _finish(futures: Iterable[Any]) -> None:
    for future in futures:
        future.result(20)
