"""Secrets come from the environment or from files of their own, and are shown nowhere."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from stream.connection import AccessRefused, client_options, ssl_context
from stream.engine.app import credentials
from stream.settings import SECRETS, BadSettings, Settings, load_settings

SHOWN_NOWHERE = "hunter2-and-more"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def every_secret() -> dict[str, object]:
    return dict.fromkeys(SECRETS, SHOWN_NOWHERE)


def test_every_secret_may_lie_in_a_file(tmp_path: Path):
    assert {"sasl_password", "ssl_key_password", "oauth_client_secret"} == SECRETS
    (tmp_path / "secret").write_text(SHOWN_NOWHERE + "\n")
    for name in SECRETS:
        # What the file says goes before what the setting says.
        settings = load_settings(**{name: "other", f"{name}_file": tmp_path / "secret"})
        assert settings.secret(name) == SHOWN_NOWHERE
        assert load_settings(**{name: "other"}).secret(name) == "other"


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-512", "OAUTHBEARER"])
def test_no_way_of_showing_the_settings_shows_a_secret(mechanism):
    settings = load_settings(
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism=mechanism,
        sasl_username="shop",
        oauth_token_url="https://sso/token",
        oauth_client_id="shop",
        **every_secret(),
    )
    shown = [
        repr(settings),
        str(settings),
        f"{settings}",
        repr(settings.model_dump()),
        settings.model_dump_json(),
        repr(dict(settings)),
        repr(list(settings.__repr_args__())),
        repr(credentials(settings)),
        repr(client_options(settings).get("sasl_oauth_token_provider")),
    ]
    assert [text for text in shown if SHOWN_NOWHERE in text] == []


def test_no_error_quotes_a_secret(tmp_path: Path):
    errors = []
    for name in SECRETS:
        for value in ([SHOWN_NOWHERE], {"a": SHOWN_NOWHERE}):
            with pytest.raises(BadSettings, match=rf"setting {name}=\(secret\)") as error:
                load_settings(**{name: value})
            errors.append(error.value)
    with pytest.raises(BadSettings, match="production=true refuses") as error:
        load_settings(production=True, **every_secret())
    errors.append(error.value)
    with pytest.raises(BadSettings, match=r"oauth_token_url=\(secret\)") as error:
        load_settings(oauth_token_url=f"https://shop:{SHOWN_NOWHERE}@sso/token")
    errors.append(error.value)
    assert [e for e in errors if SHOWN_NOWHERE in f"{e}{e!r}{e.__cause__!r}"] == []
    assert all(error.__suppress_context__ for error in errors)


def test_a_key_that_the_password_does_not_open_is_told_without_it(tmp_path: Path):
    (tmp_path / "key.pem").write_text("-----BEGIN ENCRYPTED " + "PRIVATE KEY-----\nnone\n")
    settings = load_settings(
        security_protocol="SSL", ssl_cert_file=tmp_path / "key.pem", **every_secret()
    )
    with pytest.raises(AccessRefused, match="ssl_key_password") as error:
        ssl_context(settings)
    assert SHOWN_NOWHERE not in str(error.value)


def test_a_secret_file_that_is_not_there_is_named(tmp_path: Path):
    settings = load_settings(
        security_protocol="SSL",
        ssl_cert_file=tmp_path / "cert.pem",
        ssl_key_password_file=tmp_path / "absent",
    )
    with pytest.raises(AccessRefused, match=r"ssl_key_password_file=.*absent: No such file"):
        ssl_context(settings)


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_the_toml_file_is_no_place_for_a_secret(tmp_path: Path, name: str):
    (tmp_path / "prefstream.toml").write_text(f'{name} = "{SHOWN_NOWHERE}"\n')
    with pytest.raises(BadSettings, match=f"{name} is secret: set PREFSTREAM_{name.upper()}") as e:
        load_settings()
    assert SHOWN_NOWHERE not in str(e.value)
    (tmp_path / "prefstream.toml").write_text(f'{name}_file = "secret"\n')
    (tmp_path / "secret").write_text(SHOWN_NOWHERE)
    assert load_settings().secret(name) == SHOWN_NOWHERE


def test_a_log_line_with_the_settings_in_it_has_no_secret(caplog):
    settings: Settings = load_settings(**every_secret())
    logging.getLogger("stream").warning("settings: %s %r", settings, settings.model_dump())
    assert SHOWN_NOWHERE not in caplog.text
