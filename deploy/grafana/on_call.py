"""The dashboard of whoever is on call: is something wrong, what, and since when."""

from __future__ import annotations

from deploy.grafana.panels import (
    GREEN,
    GROUP,
    INSTANCE,
    ORANGE,
    RED,
    Dashboard,
    Row,
    lines,
    stat,
    table,
    text,
)

HERE, GROUPS = 'instance=~"$instance"', 'group=~"$group"'
#: The objective of the alerts: 99 in 100 within a quarter of a second of arrival at the broker.
BUDGET = 0.01
_WAITED_FOR = 'topic=~"recommendations|search-results"'
#: Over how long, and from which burn rate on an alert fires over that (and a shorter one).
WINDOWS = (("5m", 14.4), ("1h", 14.4), ("6h", 6.0), ("3d", 1.0))
#: Several workers tell of the same partition: once.
_LAG = f"max by (group, topic, partition) (prefstream_consumer_lag{{{GROUPS}}})"
_COMMIT_AGE = f"max by (group, topic, partition) (prefstream_commit_age_seconds{{{GROUPS}}})"
_TRIMMED = f"max by (group, topic, partition) (prefstream_consumer_trimmed{{{GROUPS}}})"
_UP = 'up{job="prefstream"}'


def _burn(window: str) -> str:
    """Return how often over the budget lists and answers are late; 1 uses it up exactly."""
    name = "prefstream_broker_to_publish_seconds"
    in_time = f'sum(rate({name}_bucket{{{_WAITED_FOR},le="0.25"}}[{window}]))'
    every = f"sum(rate({name}_count{{{_WAITED_FOR}}}[{window}]))"
    return f"(1 - {in_time} / ({every} > 0)) / {BUDGET}"


def _quantile(q: str) -> str:
    rate = f"rate(prefstream_broker_to_publish_seconds_bucket{{{_WAITED_FOR}}}[$__rate_interval])"
    return f"histogram_quantile({q}, sum by (le, topic) ({rate}))"


def _rate(metric: str, by: str, *matchers: str) -> str:
    within = ",".join((HERE, *matchers))
    return f"sum by ({by}) (rate(prefstream_{metric}{{{within}}}[$__rate_interval]))"


_DEAD = f"sum(rate(prefstream_dead_letters_total{{{HERE}}}[$__rate_interval]))"
_EVENTS = f"sum(rate(prefstream_events_total{{{HERE}}}[$__rate_interval]))"
_LOST = "sum(increase(prefstream_events_lost_total[24h]))"
_BAD = ((None, GREEN), (1, RED))

WRONG = Row(
    "Is something wrong?",
    [
        stat(
            "Alerts firing",
            "Each has a runbook in its annotations (deploy/prometheus/alerts.yml); the table "
            "below names them.",
            'count(ALERTS{alertname=~"Prefstream.+",alertstate="firing"}) or vector(0)',
            limits=_BAD,
            width=3,
        ),
        stat(
            "Processes away",
            "That Prometheus knows and that do not answer. Is the process there, what are its "
            "last log lines? Its exit code says why: 2, 3 and 5 need a person.",
            f"count({_UP} == 0) or vector(0)",
            limits=_BAD,
            width=3,
        ),
        stat(
            "Not ready",
            "GET /ready of it names the condition and its reason; the panel below says since when.",
            f"count(prefstream_ready{{{HERE}}} == 0) or vector(0)",
            limits=_BAD,
            width=3,
        ),
        stat(
            "Budget burnt, 1 h",
            "How many times faster than allowed lists and answers are late. 1 uses the budget up "
            "in its time; 14.4 pages. If there is lag, it is the cause.",
            _burn("1h"),
            "suffix:x",
            decimals=1,
            low=0,
            limits=((None, GREEN), (1, ORANGE), (14.4, RED)),
            width=3,
        ),
        stat(
            "Lag",
            "Events of all groups still to be committed, asked of the broker. See by topic below.",
            f"sum({_LAG})",
            limits=((None, GREEN), (1000, ORANGE), (10_000, RED)),
            width=3,
        ),
        stat(
            "Standstill",
            "Longest time for which a partition has lag and no commit. Above a minute: restart "
            "its owner.",
            f"max({_COMMIT_AGE})",
            "s",
            decimals=0,
            limits=((None, GREEN), (30, ORANGE), (60, RED)),
            width=3,
        ),
        stat(
            "Dead letters",
            "Share of events that could not be used. `prefstream dead-letters list` says why.",
            f"{_DEAD} / ({_EVENTS} > 0)",
            "percentunit",
            decimals=2,
            limits=((None, GREEN), (0.001, ORANGE), (0.01, RED)),
            width=3,
        ),
        stat(
            "Lost unread, 24 h",
            "Deleted by the broker before they were read: retention is shorter than the outage "
            "was. Replay them from the source if they matter.",
            f"round({_LOST})",
            limits=_BAD,
            width=3,
        ),
        table(
            "Alerts, pending and firing",
            "Empty is good. A pending one fires when it has held for its time.",
            'ALERTS{alertname=~"Prefstream.+"}',
            width=12,
            height=6,
        ),
        lines(
            "Conditions of /ready that do not hold, by how many processes",
            "0 is good. topics: `prefstream topics check`. recovered: a large state takes "
            "minutes. catalogue_caught_up: is the follower's lag falling? progress: see "
            "standstill.",
            (f"sum by (condition) (1 - prefstream_ready_condition{{{HERE}}})", "{{condition}}"),
            low=0,
            width=12,
            height=6,
        ),
    ],
)

OBJECTIVE = Row(
    "Objective: 99 in 100 lists and answers within 250 ms of arrival at the broker",
    [
        lines(
            "Burn rate by window",
            "Pages where 5 min and 1 h are above 14.4, or 30 min and 6 h above 6; a ticket where "
            "6 h and 3 d are above 1. With lag: add workers, or wait if an outage is being worked "
            "off. Without: the engineer's stages.",
            *((_burn(window), window) for window, _ in WINDOWS),
            unit="suffix:x",
            low=0,
            limits=((None, "transparent"), (1, ORANGE), (14.4, RED)),
            width=12,
            links=(("Engineer", "prefstream-engineer"),),
        ),
        lines(
            "Arrival at the broker to published",
            "The worker's own part of the latency, store and broker included.",
            (_quantile("0.5"), "p50 {{topic}}"),
            (_quantile("0.99"), "p99 {{topic}}"),
            unit="s",
            low=0,
            limits=((None, "transparent"), (0.25, RED)),
            width=12,
        ),
    ],
)

PROGRESS = Row(
    "Progress",
    [
        lines(
            "Lag by group and topic",
            "Growing: more comes in than goes out, or nobody reads. Falling: leave it alone.",
            (f"sum by (group, topic) ({_LAG})", "{{topic}} {{group}}"),
            low=0,
        ),
        lines(
            "Standstill by partition, the ten longest",
            "One partition: its owner is stuck, restart it. All: does the broker take writes? A "
            "commit waits for its outputs.",
            (f"topk(10, {_COMMIT_AGE})", "{{topic}}[{{partition}}] {{group}}"),
            unit="s",
            low=0,
        ),
        lines(
            "Users whose list is put off; catalogue still to apply",
            "Put off: a backlog is read first and answered after. Catalogue: lists know nothing "
            "of what is still to apply.",
            (f"sum(prefstream_recommendations_put_off{{{HERE}}})", "users waiting"),
            (f"sum by (topic) (prefstream_follower_lag{{{HERE}}})", "{{topic}}"),
            low=0,
        ),
    ],
)

RESTARTS = Row(
    "Restarts and partitions",
    [
        lines(
            "Restarts in the last hour",
            "By instance. More than a few: its log says why it ended; the supervisor starts it "
            "again for ever.",
            (
                f'changes(process_start_time_seconds{{job="prefstream",{HERE}}}[1h])',
                "{{instance}}",
            ),
            low=0,
            width=6,
        ),
        lines(
            "Rebalances in the last hour",
            "Each stops everybody for a moment. Many: workers come and go, or are silent for "
            "longer than PREFSTREAM_SESSION_TIMEOUT_S.",
            (f"increase(prefstream_rebalances_total{{{HERE}}}[1h])", "{{instance}}"),
            low=0,
            width=6,
        ),
        lines(
            "Last recovery took",
            "From partitions taken away to work again, state read back included.",
            (f"prefstream_recovery_seconds{{{HERE}}}", "{{instance}}"),
            unit="s",
            low=0,
            width=6,
        ),
        lines(
            "Partitions held",
            "By worker. Less than the topics have, in all: some have no owner.",
            (f"prefstream_assigned_partitions{{{HERE}}}", "{{instance}}"),
            low=0,
            width=6,
        ),
    ],
)

LOSSES = Row(
    "Dead letters and losses",
    [
        lines(
            "Dead letters by topic and reason",
            "bad_event: a producer has changed, `prefstream schema TOPIC` is what it must send. "
            "bug: the log has the traceback; redrive after the fix.",
            (_rate("dead_letters_total", "topic, reason") + " > 0", "{{topic}} {{reason}}"),
            unit="reqps",
            low=0,
            width=6,
        ),
        lines(
            "Share of each topic",
            "The alert is at 1 %.",
            (
                f"{_rate('dead_letters_total', 'topic')} / ({_rate('events_total', 'topic')} > 0)",
                "{{topic}}",
            ),
            unit="percentunit",
            low=0,
            limits=((None, "transparent"), (0.01, RED)),
            width=6,
        ),
        lines(
            "Lost unread",
            "Must be 0. Trimmed: the group still stands before the gap. Raise retention.ms.",
            (f"sum by (topic) ({_TRIMMED})", "trimmed {{topic}}"),
            ("sum by (topic) (increase(prefstream_events_lost_total[1h]))", "lost {{topic}}"),
            low=0,
            width=6,
        ),
        lines(
            "Vectors refused, GPU given up, clocks ahead",
            "encoder: two encoders are in use. cpu: a GPU was given up until a restart. event, "
            "broker: whose clock is ahead; check NTP.",
            (_rate("refused_vectors_total", "reason"), "refused: {{reason}}"),
            (
                f'sum(prefstream_encoder_fallbacks_total{{{HERE},to="cpu"}})',
                "GPUs given up",
            ),
            (_rate("clock_skew_events_total", "clock"), "clock ahead: {{clock}}"),
            low=0,
            width=6,
        ),
    ],
)

EDGE = Row(
    "Edge (prefstream pseudonymise), where there is one",
    [
        lines(
            "Raw messages copied",
            "None while its lag grows: it waits for the broker, or to know who declined "
            "(users_known).",
            (
                _rate("pseudonymised_total", "topic", 'outcome="copied"'),
                "{{topic}}",
            ),
            unit="reqps",
            low=0,
        ),
        lines(
            "Raw messages refused",
            "They lie in dead-letters beside the raw topics, with raw ids: look there, not in "
            "ours.",
            (
                _rate("pseudonymised_total", "topic", 'outcome="refused"'),
                "{{topic}}",
            ),
            unit="reqps",
            low=0,
        ),
        lines(
            "From a raw message to its copy, p99",
            "Comes before everything the objective counts: a shopper waits for it as well.",
            (
                "histogram_quantile(0.99, sum by (le, topic) "
                f"(rate(prefstream_pseudonymise_seconds_bucket{{{HERE}}}[$__rate_interval])))",
                "{{topic}}",
            ),
            unit="s",
            low=0,
        ),
    ],
)

ON_CALL = Dashboard(
    uid="prefstream-on-call",
    title="prefstream / on call",
    description="Is something wrong, what, and since when.",
    since="now-1h",
    variables=(INSTANCE, GROUP),
    rows=(
        Row(
            "",
            [
                text(
                    "**For whoever is on call.** From top to bottom: is something wrong, do "
                    "shoppers notice, does it move, did it restart, is anything lost. Red figures "
                    "have an alert with a runbook; the *i* of a panel is its short form.",
                    height=2,
                )
            ],
        ),
        WRONG,
        OBJECTIVE,
        PROGRESS,
        RESTARTS,
        LOSSES,
        EDGE,
    ),
)
