"""Every topic: name, key, cleanup policy, partitions, retention. The one table of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["in", "derived", "out"]
Cleanup = Literal["delete", "compact", "compact,delete"]

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """How one topic must be: ``partitions`` None means the common count of the settings."""

    name: str
    role: Role
    key: str
    cleanup: Cleanup
    retention_ms: int = 7 * DAY_MS
    # A tombstone or an older value stays readable this long, so that a slow reader sees it.
    compaction_lag_ms: int = 0
    # A local copy of the topic that is older than this may have missed a tombstone for good.
    tombstone_ms: int = 0
    partitions: int | None = None

    def config(self) -> dict[str, str]:
        """Return the topic's Kafka settings."""
        config: dict[str, str] = {"cleanup.policy": self.cleanup}
        if self.role != "in":
            # A worker's clock may be wrong: brokers refuse what is stamped an hour ahead, and
            # delete what is stamped a retention ago.
            config["message.timestamp.type"] = "LogAppendTime"
        if "delete" in self.cleanup:
            config["retention.ms"] = str(self.retention_ms)
        if "compact" in self.cleanup and self.compaction_lag_ms:
            config["min.compaction.lag.ms"] = str(self.compaction_lag_ms)
        if self.tombstone_ms:
            config["delete.retention.ms"] = str(self.tombstone_ms)
        return config


CLICKSTREAM = TopicSpec("clickstream", "in", "user_id", "delete")
SEARCHES = TopicSpec("searches", "in", "user_id", "delete")
REVIEWS = TopicSpec("reviews", "in", "user_id", "delete")
ITEMS = TopicSpec("items", "in", "item_id", "compact", compaction_lag_ms=HOUR_MS)
USERS = TopicSpec("users", "in", "user_id", "compact", compaction_lag_ms=HOUR_MS)

ITEM_EMBEDDINGS = TopicSpec(
    "item-embeddings", "derived", "item_id", "compact", compaction_lag_ms=HOUR_MS
)
EMBEDDED_TEXTS = TopicSpec("embedded-texts", "derived", "user_id", "delete")
ITEM_PAIRS = TopicSpec("item-pairs", "derived", "item_id", "delete", retention_ms=DAY_MS)
ITEM_NEIGHBOURS = TopicSpec(
    "item-neighbours", "derived", "item_id", "compact", compaction_lag_ms=HOUR_MS
)

# Changelogs of the preference tier's tables.
USER_STATE = TopicSpec(
    "user-state",
    "derived",
    "user_id",
    "compact",
    compaction_lag_ms=HOUR_MS,
    tombstone_ms=DAY_MS,
)
ITEM_STATE = TopicSpec(
    "item-state",
    "derived",
    "item_id",
    "compact",
    compaction_lag_ms=HOUR_MS,
    tombstone_ms=DAY_MS,
)

RECOMMENDATIONS = TopicSpec("recommendations", "out", "user_id", "compact,delete")
CHURN_RISK = TopicSpec("churn-risk", "out", "user_id", "compact,delete", retention_ms=90 * DAY_MS)
# Kept until whoever asked has surely read it: the next search of a user is no newer answer to it.
SEARCH_RESULTS = TopicSpec(
    "search-results", "out", "user_id", "compact,delete", compaction_lag_ms=HOUR_MS
)
DEAD_LETTERS = TopicSpec("dead-letters", "out", "as received", "delete", retention_ms=30 * DAY_MS)

TOPICS: tuple[TopicSpec, ...] = (
    CLICKSTREAM,
    SEARCHES,
    REVIEWS,
    ITEMS,
    USERS,
    ITEM_EMBEDDINGS,
    EMBEDDED_TEXTS,
    ITEM_PAIRS,
    ITEM_NEIGHBOURS,
    USER_STATE,
    ITEM_STATE,
    RECOMMENDATIONS,
    CHURN_RISK,
    SEARCH_RESULTS,
    DEAD_LETTERS,
)
