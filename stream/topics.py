"""Every topic: name, key, cleanup policy, partitions, retention. The one table of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["in", "derived", "out"]
#: Who deals with topics: the shop's producers, our tiers, who takes our outputs, and the person who
#: runs it all with ``prefstream`` commands.
Party = Literal["shop", "encode", "preference", "neighbours", "downstream", "operator"]
Cleanup = Literal["delete", "compact", "compact,delete"]

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
#: What a tombstone replaces is compacted away within this.
ERASED_WITHIN_MS = DAY_MS


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """How one topic must be, and who writes and reads it.

    ``partitions`` None means the common count of the settings.
    """

    name: str
    role: Role
    key: str
    cleanup: Cleanup
    written_by: tuple[Party, ...]
    read_by: tuple[Party, ...]
    retention_ms: int = 7 * DAY_MS
    # A tombstone or an older value stays readable this long, so that a slow reader sees it.
    compaction_lag_ms: int = 0
    # A local copy of the topic that is older than this may have missed a tombstone for good.
    tombstone_ms: int = 0
    # What is in the topic tells of a user.
    personal: bool = False
    partitions: int | None = None

    @property
    def is_erasable(self) -> bool:
        """True when a tombstone of a user's key takes away what the topic holds of the user."""
        return self.key == "user_id" and "compact" in self.cleanup

    def config(self) -> dict[str, str]:
        """Return the topic's Kafka settings."""
        config: dict[str, str] = {"cleanup.policy": self.cleanup}
        if self.role != "in":
            # A worker's clock may be wrong: brokers refuse what is stamped an hour ahead, and
            # delete what is stamped a retention ago.
            config["message.timestamp.type"] = "LogAppendTime"
        if "delete" in self.cleanup:
            config["retention.ms"] = str(self.retention_ms)
            if self.personal:
                # A segment goes as a whole, when its newest message is due: the older ones would
                # stay for another week by Kafka's default.
                config["segment.ms"] = str(DAY_MS)
        if "compact" in self.cleanup and self.compaction_lag_ms:
            config["min.compaction.lag.ms"] = str(self.compaction_lag_ms)
        if self.is_erasable:
            # By Kafka's default nothing bounds when what a tombstone replaces is taken away. Due
            # logs are cleaned first, whatever min.cleanable.dirty.ratio says.
            config["max.compaction.lag.ms"] = str(ERASED_WITHIN_MS)
        if self.tombstone_ms:
            config["delete.retention.ms"] = str(self.tombstone_ms)
        return config


# The operator reads for `explain`, writes for `forget` and `dead-letters redrive`.
CLICKSTREAM = TopicSpec(
    "clickstream",
    "in",
    "user_id",
    "delete",
    ("shop", "operator"),
    ("preference", "operator"),
    personal=True,
)
SEARCHES = TopicSpec(
    "searches",
    "in",
    "user_id",
    "delete",
    ("shop", "operator"),
    ("encode", "operator"),
    personal=True,
)
REVIEWS = TopicSpec(
    "reviews",
    "in",
    "user_id",
    "delete",
    ("shop", "operator"),
    ("encode", "operator"),
    personal=True,
)
ITEMS = TopicSpec(
    "items",
    "in",
    "item_id",
    "compact",
    ("shop", "operator"),
    ("encode", "preference", "operator"),
    compaction_lag_ms=HOUR_MS,
)
USERS = TopicSpec(
    "users",
    "in",
    "user_id",
    "compact",
    ("shop", "operator"),
    ("encode", "preference", "operator"),
    compaction_lag_ms=HOUR_MS,
    # As long as acts are kept, and the segment that they are in: of a state that is built anew from
    # them, whoever was erased would be part again.
    tombstone_ms=8 * DAY_MS,
    personal=True,
)

ITEM_EMBEDDINGS = TopicSpec(
    "item-embeddings",
    "derived",
    "item_id",
    "compact",
    ("encode",),
    ("encode", "preference", "operator"),
    compaction_lag_ms=HOUR_MS,
)
EMBEDDED_TEXTS = TopicSpec(
    "embedded-texts",
    "derived",
    "user_id",
    "delete",
    ("encode", "operator"),
    ("preference", "operator"),
    personal=True,
)
ITEM_PAIRS = TopicSpec(
    "item-pairs",
    "derived",
    "item_id",
    "delete",
    ("preference", "operator"),
    ("neighbours", "operator"),
    retention_ms=DAY_MS,
)
ITEM_NEIGHBOURS = TopicSpec(
    "item-neighbours",
    "derived",
    "item_id",
    "compact",
    ("neighbours",),
    ("preference", "operator"),
    compaction_lag_ms=HOUR_MS,
)

# Changelogs of the tiers' tables.
USER_STATE = TopicSpec(
    "user-state",
    "derived",
    "user_id",
    "compact",
    ("preference",),
    ("preference", "operator"),
    compaction_lag_ms=HOUR_MS,
    tombstone_ms=DAY_MS,
    personal=True,
)
ITEM_STATE = TopicSpec(
    "item-state",
    "derived",
    "item_id",
    "compact",
    ("neighbours",),
    ("neighbours",),
    compaction_lag_ms=HOUR_MS,
    tombstone_ms=DAY_MS,
)

RECOMMENDATIONS = TopicSpec(
    "recommendations",
    "out",
    "user_id",
    "compact,delete",
    ("preference",),
    ("downstream", "operator"),
    personal=True,
)
CHURN_RISK = TopicSpec(
    "churn-risk",
    "out",
    "user_id",
    "compact,delete",
    ("preference",),
    ("downstream", "operator"),
    retention_ms=90 * DAY_MS,
    personal=True,
)
# Kept until whoever asked has surely read it: the next search of a user is no newer answer to it.
SEARCH_RESULTS = TopicSpec(
    "search-results",
    "out",
    "user_id",
    "compact,delete",
    ("preference",),
    ("downstream", "operator"),
    compaction_lag_ms=HOUR_MS,
    personal=True,
)
# One item has many: compaction would leave its last review alone.
REVIEW_INSIGHTS = TopicSpec(
    "review-insights",
    "out",
    "item_id",
    "delete",
    ("preference",),
    ("downstream", "operator"),
    personal=True,
)
DEAD_LETTERS = TopicSpec(
    "dead-letters",
    "out",
    "as received",
    "delete",
    ("encode", "preference", "neighbours", "operator"),
    ("operator",),
    retention_ms=30 * DAY_MS,
    personal=True,
)

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
    REVIEW_INSIGHTS,
    DEAD_LETTERS,
)
