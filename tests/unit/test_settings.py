from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stream.settings import (
    DEFAULT_WEIGHTS,
    BadSettings,
    Settings,
    load_settings,
    unknown_variables,
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, and no setting in the environment."""
    import os

    for name in [name for name in os.environ if name.startswith("PREFSTREAM_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_environment_comes_before_dotenv_before_toml_before_the_default(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "prefstream.toml").write_text('top_k = 3\nbroker = "toml:1"\npartitions = 9\n')
    (folder / ".env").write_text("PREFSTREAM_TOP_K=4\nPREFSTREAM_BROKER=dotenv:1\n")
    monkeypatch.setenv("PREFSTREAM_TOP_K", "5")
    found = load_settings()
    assert (found.top_k, found.broker, found.partitions) == (5, "dotenv:1", 9)
    assert found.history_items == Settings.model_fields["history_items"].default
    assert load_settings(top_k=6).top_k == 6


def test_the_toml_file_may_lie_elsewhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "shop.toml").write_text("top_k = 7\n[weights]\nclick = 0.9\n")
    monkeypatch.setenv("PREFSTREAM_CONFIG", str(folder / "shop.toml"))
    assert load_settings().top_k == 7
    assert load_settings().weights["click"] == 0.9


def test_a_toml_file_that_was_named_and_is_not_there_is_an_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFSTREAM_CONFIG", str(folder / "shpo.toml"))
    with pytest.raises(BadSettings, match=r"PREFSTREAM_CONFIG.*shpo\.toml"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("top_k", "0", "greater than or equal to 1"),
        ("top_k", "many", "valid integer"),
        ("partitions", "0", "greater than or equal to 1"),
        ("text_share", "1.5", "less than or equal to 1"),
        ("store", "redis", "'rocksdb' or 'memory'"),
        ("clock", "atomic", "'wall' or 'stream'"),
        ("log_level", "loud", "'debug', 'info', 'warning' or 'error'"),
        ("metrics_port", "70000", "less than or equal to 65535"),
        ("short_half_life_h", "0", "greater than 0"),
        ("long_half_life_h", "nan", "finite number"),
        ("recommendation_ttl_s", "inf", "finite number"),
    ],
)
def test_a_bad_value_is_named_with_its_setting_and_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, allowed: str
) -> None:
    monkeypatch.setenv(f"PREFSTREAM_{name.upper()}", value)
    with pytest.raises(BadSettings) as error:
        load_settings()
    for expected in (name, value, allowed):
        assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_every_bad_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFSTREAM_TOP_K", "0")
    monkeypatch.setenv("PREFSTREAM_STORE", "redis")
    with pytest.raises(BadSettings, match=r"top_k.*; .*store|store.*; .*top_k"):
        load_settings()


def test_weights_that_are_set_replace_only_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFSTREAM_WEIGHTS", '{"purchase": 3, "dislike": -5}')
    assert load_settings().weights == {**DEFAULT_WEIGHTS, "purchase": 3.0, "dislike": -5.0}


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ('{"teleport": 1}', "teleport"),
        ('{"click": "much"}', "much"),
        ('{"click": NaN}', "finite number"),
        ("not json", "weights"),
        ("[1]", "valid dictionary"),
    ],
)
def test_unknown_and_unreadable_weights_are_refused(
    monkeypatch: pytest.MonkeyPatch, weights: str, said: str
) -> None:
    monkeypatch.setenv("PREFSTREAM_WEIGHTS", weights)
    with pytest.raises(BadSettings, match=said):
        load_settings()


def test_an_unknown_act_is_answered_with_the_known_ones() -> None:
    with pytest.raises(BadSettings) as error:
        load_settings(weights={"teleport": 1})
    assert all(act in str(error.value) for act in DEFAULT_WEIGHTS)


def test_churn_bands_that_cross_are_refused() -> None:
    with pytest.raises(BadSettings, match=r"churn_high=0.3: .*churn_low, which is 0.8"):
        load_settings(churn_low=0.8, churn_high=0.3)


@pytest.mark.parametrize(
    ("login", "said"),
    [
        ({}, "sasl_username: must be set for SASL_SSL"),
        ({"sasl_username": "shop"}, "sasl_password or sasl_password_file: must be set"),
        (
            {"sasl_username": "shop", "sasl_password_file": "absent"},  # pragma: allowlist secret
            "sasl_password_file=absent: No",
        ),
    ],
)
def test_half_a_login_is_refused(login: dict[str, str], said: str) -> None:
    with pytest.raises(BadSettings, match=said):
        load_settings(security_protocol="SASL_SSL", **login)


def test_a_runtime_that_does_not_compute_on_the_device_is_refused() -> None:
    with pytest.raises(BadSettings, match="encoder_device='cuda': must be auto or cpu"):
        load_settings(encoder_runtime="openvino", encoder_device="cuda")
    assert load_settings(encoder_runtime="openvino", encoder_device="cpu").encoder_device == "cpu"


def test_what_is_secret_is_not_quoted_when_it_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFSTREAM_SASL_PASSWORD", "hunter2")
    with pytest.raises(BadSettings) as half:
        load_settings(security_protocol="SASL_PLAINTEXT")
    with pytest.raises(BadSettings, match=r"sasl_password=\(secret\)") as unreadable:
        load_settings(sasl_password=["hunter2"])
    assert "hunter2" not in str(half.value) + str(unreadable.value)


def test_a_misspelt_variable_is_told_with_what_may_be_meant() -> None:
    names = ["PREFSTREAM_TOPK", "PREFSTREAM_TOP_K", "PREFSTREAM_CONFIG", "PATH", "PREFSTREAM_XYZ"]
    assert unknown_variables(names) == [
        "PREFSTREAM_TOPK is no setting: PREFSTREAM_TOP_K may be meant",
        "PREFSTREAM_XYZ is no setting",
    ]


def test_malformed_toml_is_refused_in_one_line(folder: Path) -> None:
    (folder / "prefstream.toml").write_text("top_k = = 3\n")
    with pytest.raises(BadSettings) as error:
        load_settings()
    assert "prefstream.toml" in str(error.value)


def test_a_misspelt_setting_of_the_toml_file_is_refused(folder: Path) -> None:
    (folder / "prefstream.toml").write_text("topk = 3\n")
    with pytest.raises(BadSettings, match="topk"):
        load_settings()


def test_settings_cannot_be_changed() -> None:
    found: Any = load_settings()
    with pytest.raises(ValueError, match="frozen"):
        found.top_k = 3


def test_every_setting_says_what_it_is() -> None:
    fields = Settings.model_fields.items()
    assert [name for name, field in fields if not (field.description or "").endswith(".")] == []
