"""Production mode refuses what is open, and names all of it at once."""

from __future__ import annotations

import pytest

from stream.cli import run
from stream.settings import BadSettings, load_settings

SAFE: dict[str, object] = {
    "production": True,
    "security_protocol": "SASL_SSL",
    "sasl_username": "shop",
    "sasl_password": "hunter2",  # pragma: allowlist secret
}


def test_a_guarded_broker_and_loopback_metrics_are_fit():
    assert load_settings(**SAFE).production


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ({"security_protocol": "PLAINTEXT"}, "security_protocol=PLAINTEXT: .*in clear"),
        ({"security_protocol": "SASL_PLAINTEXT"}, "security_protocol=SASL_PLAINTEXT: .*in clear"),
        (
            {"security_protocol": "PLAINTEXT", "broker": "localhost:9092"},
            "security_protocol=PLAINTEXT",
        ),
        ({"security_protocol": "SSL"}, "security_protocol=SSL: .*ssl_cert_file"),
        ({"ssl_check_hostname": False}, "ssl_check_hostname=False"),
        ({"metrics_host": "0.0.0.0"}, r"metrics_host=0\.0\.0\.0: .*metrics_public"),
        ({"metrics_host": "::"}, "metrics_host=::"),
        ({"metrics_host": "worker-1"}, "metrics_host=worker-1"),
        ({"encoder": "acme/shop-bert"}, "encoder=acme/shop-bert: .*encoder_sha256"),
        ({"encoder": "intfloat/multilingual-e5-small@main"}, "encoder=.*@main"),
        ({"encoder": "tests"}, "encoder=tests"),
        (
            {
                "sasl_mechanism": "OAUTHBEARER",
                "oauth_token_url": "http://sso/token",
                "oauth_client_id": "shop",
                "oauth_client_secret": "hunter2",  # pragma: allowlist secret
            },
            "oauth_token_url=http://sso/token: .*in clear",
        ),
    ],
)
def test_what_is_open_is_refused_by_name(others, said):
    with pytest.raises(BadSettings, match=said) as error:
        load_settings(**{**SAFE, **others})
    assert "production=true" in str(error.value)
    assert "hunter2" not in str(error.value)
    load_settings(**{**SAFE, **others, "production": False})


@pytest.mark.parametrize(
    "others",
    [
        {"metrics_host": "0.0.0.0", "metrics_public": True},
        {"metrics_host": "0.0.0.0", "metrics_port": 0},
        {"metrics_host": "::1"},
        {"metrics_host": "127.0.0.2"},
        {"metrics_host": "localhost"},
        {"encoder": "multilingual-e5-small"},
        {"encoder": "acme/shop-bert", "encoder_sha256": "0" * 64},
        {"security_protocol": "SSL", "ssl_cert_file": "worker.pem"},
    ],
)
def test_what_is_meant_is_not_refused(others):
    assert load_settings(**{**SAFE, **others}).production


def test_every_reason_is_told_at_once():
    with pytest.raises(BadSettings) as error:
        load_settings(production=True, metrics_host="0.0.0.0")
    assert "security_protocol=PLAINTEXT" in str(error.value)
    assert "metrics_host=0.0.0.0" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("command", [["worker"], ["topics", "check"], ["forget", "anna"]])
def test_every_command_refuses_before_it_connects(command, monkeypatch, capsys):
    monkeypatch.setenv("PREFSTREAM_PRODUCTION", "true")
    assert run(command) == 2
    assert "production=true refuses security_protocol=PLAINTEXT" in capsys.readouterr().err
