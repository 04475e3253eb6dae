"""The evaluations there are; apart, so that the command's help loads nothing."""

#: In the order of ``all``; each is a module of this package with a function ``evaluate``.
NAMES = (
    "beauty",
    "beauty_trained",
    "encoder",
    "online_retail",
    "churn",
    "search",
    "sentiment",
)
