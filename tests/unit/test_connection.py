"""What clients are given to reach a broker; that it lets them in is tests/faults/test_access.py."""

from __future__ import annotations

import re
import ssl
from pathlib import Path

import pytest
import trustme
from aiokafka.errors import KafkaConnectionError, SaslAuthenticationFailed

from stream import connection
from stream.connection import AccessRefused, client_options, refusal, ssl_context
from stream.engine.app import new_app
from stream.settings import Settings, load_settings

SECRET = "hunter2-and-more"  # pragma: allowlist secret


@pytest.fixture
def files(tmp_path: Path) -> Path:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    issued = authority.issue_cert("worker")
    issued.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "worker.pem"))
    return tmp_path


def secured(files: Path, **more: object) -> Settings:
    return load_settings(
        security_protocol="SASL_SSL",
        sasl_username="shop",
        sasl_password=SECRET,
        ssl_ca_file=files / "ca.pem",
        **more,
    )


def test_without_settings_a_broker_is_spoken_to_in_plain_text():
    assert client_options(load_settings(broker="b:1")) == {
        "bootstrap_servers": "b:1",
        "security_protocol": "PLAINTEXT",
        "ssl_context": None,
    }


def test_a_login_goes_to_the_client_and_nowhere_else(files):
    settings = secured(files)
    options = client_options(settings)
    assert options["sasl_plain_username"] == "shop"
    assert options["sasl_plain_password"] == SECRET
    assert options["sasl_mechanism"] == "SCRAM-SHA-512"
    assert SECRET not in repr(settings) + str(settings) + settings.model_dump_json()


def test_the_password_may_lie_in_a_file(files):
    (files / "password").write_text(SECRET + "\n")
    settings = load_settings(
        security_protocol="SASL_PLAINTEXT",
        sasl_username="shop",
        sasl_password_file=files / "password",
    )
    assert client_options(settings)["sasl_plain_password"] == SECRET
    assert client_options(settings)["ssl_context"] is None


async def test_a_password_file_that_has_gone_is_named(files):
    (files / "password").write_text(SECRET)
    settings = load_settings(
        security_protocol="SASL_PLAINTEXT",
        sasl_username="shop",
        sasl_password_file=files / "password",
    )
    (files / "password").unlink()
    with pytest.raises(AccessRefused, match=r"sasl_password_file=.*No such file"):
        client_options(settings)
    assert "sasl_password_file" in str(await refusal(settings))


def test_the_broker_is_looked_at_closely_unless_told_otherwise(files):
    context = ssl_context(secured(files))
    assert context is not None
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    lenient = ssl_context(secured(files, ssl_check_hostname=False))
    assert lenient is not None
    assert (lenient.verify_mode, lenient.check_hostname) == (ssl.CERT_REQUIRED, False)


def test_our_own_certificate_is_shown(files):
    assert ssl_context(secured(files, ssl_cert_file=files / "worker.pem"))


@pytest.mark.parametrize("setting", ["ssl_ca_file", "ssl_cert_file"])
def test_files_that_cannot_be_used_are_named(files, setting):
    (files / "junk.pem").write_text("not a certificate")
    for path in (files / "junk.pem", files / "absent.pem"):
        settings = secured(files).model_copy(update={setting: path})
        with pytest.raises(AccessRefused, match=f"{setting}=.*{path.name}"):
            ssl_context(settings)


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        ("PLAINTEXT", None),
        ("SSL", "SSL"),
        ("SASL_PLAINTEXT", "SASL_PLAINTEXT"),
        ("SASL_SSL", "SASL_SSL"),
    ],
)
def test_the_app_speaks_as_the_other_clients_do(files, protocol, expected):
    settings = secured(files).model_copy(
        update={"security_protocol": protocol, "state_dir": files / "state"}
    )
    credentials = new_app(settings, "encode").conf.broker_credentials
    assert (credentials and credentials.protocol.value) == expected
    if protocol.startswith("SASL"):
        assert credentials.mechanism.value == "SCRAM-SHA-512"
        assert (credentials.username, credentials.password) == ("shop", SECRET)
        assert SECRET not in repr(credentials)


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({"a": SaslAuthenticationFailed("no"), "b": KafkaConnectionError("away")}, "a:1.*'shop'"),
        ({"a": OSError("away"), "b": SaslAuthenticationFailed("no")}, "b:2.*sasl_password"),
        ({"a": ssl.SSLCertVerificationError("self-signed"), "b": OSError()}, "a:1.*ssl_ca_file"),
        ({"a": OSError("away"), "b": KafkaConnectionError("away")}, None),
        ({"a": SaslAuthenticationFailed("no"), "b": None}, None),
    ],
)
async def test_who_says_no_is_told_from_who_is_away(monkeypatch, files, answers, said):
    class Open:
        def close(self) -> None:
            """Nothing was opened."""

    async def create_conn(host, port, **options):
        if answers[host]:
            raise answers[host]
        return Open()

    monkeypatch.setattr(connection, "create_conn", create_conn)
    found = await refusal(secured(files, broker="a:1,b:2"))
    if said is None:
        assert found is None
    else:
        assert re.search(said, str(found))
        assert SECRET not in str(found)
