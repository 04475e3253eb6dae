"""Tokens for OAUTHBEARER, from a real token server on loopback."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import trustme
from aiokafka.conn import OAuthAuthenticator
from sasl_broker import SaslBroker
from token_server import TokenServer, serving

from stream.connection import AccessRefused, client_options, refusal, token_provider
from stream.engine.app import credentials
from stream.settings import Settings, load_settings
from stream.tokens import Grant, TokenAbsent, TokenProvider, TokenRefused

SECRET = "hunter2 and: more/%"  # pragma: allowlist secret


@pytest.fixture
def server() -> Iterator[TokenServer]:
    with serving(TokenServer("shop", SECRET)) as running:
        yield running


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def provider_of(server: TokenServer, clock: Clock, **more: object) -> TokenProvider:
    return TokenProvider(replace(Grant(server.url, "shop", SECRET), **more), clock)


async def test_a_token_serves_until_four_fifths_of_its_life_are_over(server):
    clock = Clock()
    provider = provider_of(server, clock)
    assert [await provider.token(), await provider.token()] == ["token-1", "token-1"]
    clock.now_s += 79
    assert await provider.token() == "token-1"
    clock.now_s += 2
    assert await provider.token() == "token-2"


async def test_what_a_token_is_for_is_asked_for(server):
    await provider_of(server, Clock(), scope="kafka", audience="brokers").token()
    assert server.forms == [
        {"grant_type": ["client_credentials"], "scope": ["kafka"], "audience": ["brokers"]}
    ]


async def test_clients_that_connect_together_ask_once(server):
    provider = provider_of(server, Clock())
    assert set(await asyncio.gather(*(provider.token() for _ in range(8)))) == {"token-1"}


def test_two_event_loops_share_a_token(server):
    provider = provider_of(server, Clock())
    assert [asyncio.run(provider.token()), asyncio.run(provider.token())] == ["token-1"] * 2


async def test_while_the_server_fails_the_old_token_serves_to_its_end(server, caplog):
    clock = Clock()
    provider = provider_of(server, clock)
    await provider.token()
    server.status = 503
    clock.now_s += 81
    assert await provider.token() == "token-1"
    assert "14 s left of the old one" in caplog.text
    clock.now_s += 15
    with pytest.raises(TokenAbsent, match="status 503"):
        await provider.token()
    server.status = 200
    clock.now_s += 31
    assert await provider.token() == f"token-{len(server.forms)}"


async def test_a_server_that_fails_is_asked_with_growing_pauses(server):
    clock = Clock()
    provider = provider_of(server, clock)
    server.status = 500
    asked = []
    for _ in range(80):
        with pytest.raises(TokenAbsent, match="status 500"):
            await provider.token()
        asked.append(len(server.forms))
        clock.now_s += 1
    # After 0, 1, 3, 7, 15, 31 and 61 seconds.
    assert asked[-1] == 7


@pytest.mark.parametrize(
    ("status", "body", "kind", "said"),
    [
        (401, b'{"error": "invalid_client"}', TokenRefused, r"status 401 \(invalid_client\)"),
        (400, b'{"error": "see hunter2"}', TokenRefused, "status 400$"),
        (404, b"<html>", TokenRefused, "status 404$"),
        (302, b"", TokenRefused, "status 302$"),
        (429, b"{}", TokenAbsent, "status 429$"),
        (503, b"[1]", TokenAbsent, "status 503$"),
        (200, b"hunter2", TokenAbsent, "expected JSON with access_token"),
        (408, b"", TokenAbsent, "status 408$"),
        (200, b'{"access_token": ""}', TokenAbsent, "expected JSON"),
        (200, b'{"access_token": "hunter2", "expires_in": "inf"}', TokenAbsent, "expected JSON"),
        (200, b'{"access_token": 7, "expires_in": 9}', TokenAbsent, "expected JSON"),
        (200, b'{"access_token": "hunter2\\u0001", "expires_in": 9}', TokenAbsent, "expected JSON"),
        (200, b'{"access_token": "hunter2", "expires_in": "soon"}', TokenAbsent, "expected JSON"),
        (200, b'{"access_token": "hunter2", "expires_in": -1}', TokenAbsent, "expected JSON"),
    ],
)
async def test_no_answer_is_quoted(server, status, body, kind, said):
    server.status, server.body = status, body
    provider = provider_of(server, Clock())
    with pytest.raises(kind, match=said) as error:
        await provider.token()
    assert "hunter2" not in str(error.value) + repr(error.value)


async def test_a_server_that_is_away_is_told_from_one_that_says_no():
    away = TokenServer("shop", SECRET)
    away.server_close()
    with pytest.raises(TokenAbsent, match="ConnectError"):
        await provider_of(away, Clock()).token()


async def test_the_secret_is_read_from_its_file_each_time(server, tmp_path: Path):
    file = tmp_path / "secret"
    file.write_text("an older one\n")
    clock = Clock()
    provider = provider_of(server, clock, client_secret=file)
    with pytest.raises(TokenRefused, match="status 401"):
        await provider.token()
    file.write_text(SECRET + "\n")
    clock.now_s += 2
    assert await provider.token() == "token-2"
    file.unlink()
    clock.now_s += 99
    with pytest.raises(TokenRefused, match=r"oauth_client_secret_file=.*No such file"):
        await provider.token()


async def test_the_token_server_must_have_a_certificate_that_is_trusted(tmp_path: Path):
    authority, tls = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with serving(TokenServer("shop", SECRET, tls)) as server:
        trusting = provider_of(server, Clock(), ca_file=tmp_path / "ca.pem")
        assert await trusting.token() == "token-1"
        with pytest.raises(TokenAbsent, match="CERTIFICATE_VERIFY_FAILED"):
            await provider_of(server, Clock()).token()


def settings_of(server: TokenServer, **more: object) -> Settings:
    return load_settings(
        **{
            "broker": "127.0.0.1:9",
            "security_protocol": "SASL_PLAINTEXT",
            "sasl_mechanism": "OAUTHBEARER",
            "oauth_token_url": server.url,
            "oauth_client_id": "shop",
            "oauth_client_secret": SECRET,
            "oauth_extensions": {"logicalCluster": "lkc-1"},
            **more,
        }
    )


async def test_the_broker_is_sent_token_and_extensions_by_the_client(server):
    provider = client_options(settings_of(server))["sasl_oauth_token_provider"]
    sent = await OAuthAuthenticator(sasl_oauth_token_provider=provider).step(None)
    assert sent == (b"n,,\x01auth=Bearer token-1\x01logicalCluster=lkc-1\x01\x01", True)


def test_all_clients_of_a_process_share_one_provider(server):
    settings = settings_of(server)
    assert client_options(settings)["sasl_mechanism"] == "OAUTHBEARER"
    assert "sasl_plain_password" not in client_options(settings)
    provider = client_options(settings)["sasl_oauth_token_provider"]
    assert credentials(settings).oauth_cb is provider  # type: ignore[union-attr]
    assert token_provider(settings) is provider
    assert SECRET not in repr(provider) + repr(vars(provider)) + repr(credentials(settings))


async def test_a_client_with_a_token_is_let_in(server, tmp_path: Path):
    authority, tls = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    async with SaslBroker(lambda token: token == "token-1").serving(tls) as broker:
        settings = settings_of(
            server,
            broker=broker.address,
            security_protocol="SASL_SSL",
            ssl_ca_file=tmp_path / "ca.pem",
        )
        assert await refusal(settings) is None
        assert broker.tokens == ["token-1"]


async def test_a_broker_that_refuses_the_token_is_told_with_the_settings_to_look_at(server):
    async with SaslBroker(lambda _: False).serving() as broker:
        refused = await refusal(settings_of(server, broker=broker.address))
    assert isinstance(refused, AccessRefused)
    for said in (broker.address, "'shop'", "token refused", "oauth_scope", "oauth_audience"):
        assert said in str(refused)
    assert "token-1" not in str(refused)


async def test_a_token_server_that_says_no_is_told_with_the_settings_to_look_at(server):
    async with SaslBroker(lambda _: True).serving() as broker:
        wrong = {"broker": broker.address, "oauth_client_secret": SECRET[:-1]}
        refused = await refusal(settings_of(server, **wrong))
        assert isinstance(refused, AccessRefused)
        for said in ("'shop'", "invalid_client", "oauth_token_url", "oauth_client_secret"):
            assert said in str(refused)
        server.status = 503
        # Away, and not refused: a worker waits for it as for a broker.
        assert await refusal(settings_of(server, broker=broker.address, oauth_scope="x")) is None
        assert broker.tokens == []
