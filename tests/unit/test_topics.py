"""The table of topics: what bounds an erasure."""

from __future__ import annotations

import pytest

from stream.topics import DAY_MS, TOPICS, USERS

PERSONAL = [spec for spec in TOPICS if spec.personal]


@pytest.mark.parametrize("spec", PERSONAL, ids=lambda spec: spec.name)
def test_what_tells_of_a_user_is_gone_some_day(spec):
    config = spec.config()
    if spec.is_erasable:
        lag_ms = int(config["max.compaction.lag.ms"])
        assert int(config.get("min.compaction.lag.ms", 0)) < lag_ms == DAY_MS
    else:
        assert int(config["retention.ms"]) > 0
        assert int(config["segment.ms"]) == DAY_MS


def test_whoever_is_named_in_a_key_is_told_of():
    assert {spec.name for spec in TOPICS if spec.key == "user_id"} <= {s.name for s in PERSONAL}


def test_a_tombstone_outlives_the_acts_that_a_state_is_built_from():
    acts = [spec for spec in TOPICS if spec.role == "in" and spec.cleanup == "delete"]
    kept_ms = max(spec.retention_ms + int(spec.config()["segment.ms"]) for spec in acts)
    assert int(USERS.config()["delete.retention.ms"]) >= kept_ms
