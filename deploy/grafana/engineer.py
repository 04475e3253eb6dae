"""The engineer's dashboard: what each part does, what it costs, and what it holds."""

from __future__ import annotations

from deploy.grafana.panels import (
    INSTANCE,
    RED,
    Dashboard,
    Row,
    heatmap,
    lines,
    shares,
    table,
    text,
)

HERE = 'instance=~"$instance"'


def _rate(metric: str, by: str = "", *matchers: str) -> str:
    """Return how much is added to a counter a second, by a label or in all."""
    within = ",".join((HERE, *matchers))
    grouped = f"sum by ({by}) " if by else "sum"
    return f"{grouped}(rate(prefstream_{metric}{{{within}}}[$__rate_interval]))"


def _quantile(q: str, metric: str, by: str = "", *matchers: str) -> str:
    within = ",".join((HERE, *matchers))
    labels = f"le, {by}" if by else "le"
    rate = f"rate(prefstream_{metric}_bucket{{{within}}}[$__rate_interval])"
    return f"histogram_quantile({q}, sum by ({labels}) ({rate}))"


def _each(part: str, whole: str) -> str:
    """Return one per the other; nothing where there is none of the other."""
    return f"{part} / ({whole} > 0)"


def _stage_seconds(stage: str) -> str:
    return _rate("stage_seconds_sum", "", f'stage="{stage}"')


_LISTS = _rate("outputs_total", "", 'topic="recommendations"')
_SEARCHES = _rate("outputs_total", "", 'topic="search-results"')
_ACTS = _rate("events_total", "", 'topic=~"clickstream|embedded-texts"')
_FOLDED = _rate("events_total", "", 'topic=~"clickstream|embedded-texts|users"')

RUNNING = Row(
    "Running",
    [
        table(
            "Versions",
            "Program, encoder and device, index of each process. Two encoders at once: vectors of "
            "one are refused by the other.",
            f"prefstream_build_info{{{HERE}}}",
            f"prefstream_encoder_info{{{HERE}}}",
            f"prefstream_index_info{{{HERE}}}",
            width=12,
            height=7,
        ),
        lines(
            "Cores in use",
            "preference at one core is full: add workers, up to the partitions. encode: more "
            "cores, or a GPU.",
            (
                f'rate(process_cpu_seconds_total{{job="prefstream",{HERE}}}[$__rate_interval])',
                "{{instance}}",
            ),
            low=0,
            width=6,
            height=7,
        ),
        lines(
            "Memory",
            "Resident. Flat once histories have filled; a slope for hours is a leak.",
            (f'process_resident_memory_bytes{{job="prefstream",{HERE}}}', "{{instance}}"),
            unit="bytes",
            low=0,
            width=6,
            height=7,
        ),
    ],
)

FLOW = Row(
    "Flow",
    [
        lines(
            "Events in, by topic",
            "A topic that stops: its producer, or the stage before (encode, for embedded-texts).",
            (_rate("events_total", "topic"), "{{topic}}"),
            unit="reqps",
            low=0,
        ),
        lines(
            "Events in, by outcome",
            "folded and encoded are the normal ends; repeat is what a restart reads again, "
            "unknown_item acts on what the catalogue lacks.",
            (_rate("events_total", "outcome"), "{{outcome}}"),
            unit="reqps",
            low=0,
        ),
        lines(
            "Published, by topic",
            "Acknowledged by the broker.",
            (_rate("outputs_total", "topic"), "{{topic}}"),
            unit="reqps",
            low=0,
        ),
    ],
)

STAGES = Row(
    "Stages and what they cost",
    [
        lines(
            "Time of a stage per micro-batch, p99",
            "Which stage a slow batch spends its time in; publish is the broker's.",
            (_quantile("0.99", "stage_seconds", "stage"), "{{stage}}"),
            unit="s",
            low=0,
        ),
        shares(
            "Seconds of each stage per second",
            "What a worker's core is spent on, waiting for the broker included (publish).",
            (_rate("stage_seconds_sum", "stage", 'stage!="batch"'), "{{stage}}"),
            unit="percentunit",
        ),
        lines(
            "Events per micro-batch, mean",
            "Grows with load: that keeps an event cheap. At PREFSTREAM_BATCH_MAX a backlog is "
            "being read.",
            (
                _each(_rate("batch_size_sum", "stage"), _rate("batch_size_count", "stage")),
                "{{stage}}",
            ),
            low=0,
        ),
        lines(
            "Cost of a list, of an act, of a search",
            "Ranking, folding, answering, each by how many there were. A list 0.8 ms, an act 0.1 "
            "ms on the machine of the README; twice yours after a release is one to go back from.",
            (_each(_stage_seconds("recommend"), _LISTS), "list"),
            (_each(_stage_seconds("fold"), _ACTS), "act"),
            (_each(_stage_seconds("search"), _SEARCHES), "search"),
            unit="s",
            low=0,
        ),
        lines(
            "Lists put off, and left out for a later one",
            "Put off: users waiting, read first and answered after. Left out: triggers that one "
            "list answered together, rising with load.",
            (f"sum(prefstream_recommendations_put_off{{{HERE}}})", "users waiting"),
            (_rate("recommendations_coalesced_total"), "left out /s"),
            low=0,
        ),
        heatmap(
            "Lists: arrival at the broker to published",
            "Where the latencies lie, not only their quantiles: two bands are two kinds of "
            "batches.",
            "sum by (le) (increase(prefstream_broker_to_publish_seconds_bucket"
            f'{{{HERE},topic="recommendations"}}[$__rate_interval]))',
        ),
        lines(
            "Arrival at the broker to published, p99",
            "The objective is a quarter of a second for 99 in 100 lists and answers to searches.",
            (_quantile("0.99", "broker_to_publish_seconds", "topic"), "{{topic}}"),
            unit="s",
            low=0,
            limits=((None, "transparent"), (0.25, RED)),
            links=(("On call", "prefstream-on-call"),),
        ),
        lines(
            "Event time to published, p99",
            "Includes the producer's own delay and its clock. This alone growing: they send late.",
            (_quantile("0.99", "end_to_end_seconds", "topic"), "{{topic}}"),
            unit="s",
            low=0,
        ),
        lines(
            "Churn assessments",
            "Published or not. The timer's must go on when nobody acts.",
            (_rate("churn_assessments_total", "cause"), "{{cause}}"),
            unit="reqps",
            low=0,
        ),
    ],
)

ENCODER = Row(
    "Encoder",
    [
        lines(
            "Texts encoded, by kind",
            "Items come in bursts, with a catalogue. Searches below what comes in: they wait, see "
            "the lag.",
            (_rate("encoder_texts_total", "kind"), "{{kind}}"),
            unit="reqps",
            low=0,
            width=6,
        ),
        lines(
            "Time per micro-batch",
            "A step up for the same texts: a GPU given up, cores throttled, longer texts.",
            (_quantile("0.5", "encoder_seconds"), "p50"),
            (_quantile("0.99", "encoder_seconds"), "p99"),
            unit="s",
            low=0,
            width=6,
        ),
        lines(
            "Time per text",
            "The stage's seconds by its texts: what more cores or a GPU would make smaller.",
            (
                _each(_rate("encoder_seconds_sum"), _rate("encoder_texts_total")),
                "mean",
            ),
            unit="s",
            low=0,
            width=6,
        ),
        lines(
            "Queries found in the cache",
            "Falls with more shoppers and rarer words: PREFSTREAM_ENCODER_CACHE.",
            (
                _each(
                    _rate("encoder_cache_total", "", 'result="hit"'), _rate("encoder_cache_total")
                ),
                "hits",
            ),
            unit="percentunit",
            low=0,
            high=1,
            width=6,
        ),
        lines(
            "Texts cut",
            "Longer than the model takes (PREFSTREAM_ENCODER_MAX_TOKENS): what is behind that is "
            "not read.",
            (_rate("encoder_truncated_total"), "cut"),
            unit="reqps",
            low=0,
        ),
        lines(
            "Fallbacks",
            "cpu: the GPU was given up until a restart (its alert says what to do). The others: "
            "no memory for a whole batch.",
            (
                "sum by (to) (increase(prefstream_encoder_fallbacks_total"
                f"{{{HERE}}}[$__rate_interval]))",
                "{{to}}",
            ),
            low=0,
        ),
        lines(
            "Reviews read by the sentiment model",
            "Nothing without one.",
            (_rate("review_sentiments_total", "sentiment"), "{{sentiment}}"),
            unit="reqps",
            low=0,
        ),
    ],
)

INDEX = Row(
    "Item index",
    [
        lines(
            "Items and vectors",
            "Recommendable now, and held of any status. Apart for long: items without a vector, "
            "see encode's lag.",
            (f"prefstream_index_items{{{HERE}}} > 0", "items {{instance}}"),
            (f"prefstream_index_vectors{{{HERE}}} > 0", "vectors {{instance}}"),
            low=0,
            width=6,
        ),
        lines(
            "Age",
            "Since it changed last. Growing while the catalogue changes: the follower stands "
            "still.",
            (
                f"time() - (prefstream_index_updated_timestamp_seconds{{{HERE}}} > 0)",
                "{{instance}}",
            ),
            unit="s",
            low=0,
            width=6,
        ),
        lines(
            "New versions",
            "Several writes may pass between two looks.",
            (_rate("index_updates_total", "instance"), "{{instance}}"),
            unit="reqps",
            low=0,
            width=6,
        ),
        lines(
            "Still to apply, and vectors refused",
            "Every preference worker follows all partitions of the catalogue's topics. encoder: "
            "vectors of another one, never mixed in.",
            (f"sum by (topic) (prefstream_follower_lag{{{HERE}}})", "{{topic}}"),
            (_rate("refused_vectors_total", "reason"), "refused: {{reason}} /s"),
            low=0,
            width=6,
        ),
    ],
)

STATE = Row(
    "State, store and changelog",
    [
        lines(
            "Rows",
            "Users (user-state) and items (item-state) of each worker's partitions.",
            (
                f"sum by (instance, table) (prefstream_state_rows{{{HERE}}})",
                "{{table}} {{instance}}",
            ),
            low=0,
            width=6,
        ),
        lines(
            "Bytes on disk",
            "Of the local store. Three times the rows' bytes is usual while it compacts; a volume "
            "needs that room.",
            (
                f"sum by (instance, table) (prefstream_state_bytes{{{HERE}}})",
                "{{table}} {{instance}}",
            ),
            unit="bytes",
            low=0,
            width=6,
        ),
        lines(
            "Bytes of a user's row",
            "As written. PREFSTREAM_MAX_STATE_BYTES bounds it.",
            (_quantile("0.5", "user_row_bytes"), "p50"),
            (_quantile("0.99", "user_row_bytes"), "p99"),
            unit="bytes",
            low=0,
            width=6,
        ),
        lines(
            "Rows cut, rows expired",
            "Cut: too long, the oldest gave way; of busy users every fourth act or so. Expired: "
            "untouched for PREFSTREAM_STATE_TTL_DAYS.",
            (_rate("user_rows_trimmed_total"), "cut"),
            (_rate("user_rows_expired_total"), "expired"),
            unit="reqps",
            low=0,
            width=6,
        ),
        shares(
            "Bytes sent, by topic",
            "Keys and values, not compressed. user-state and item-state are the changelogs, with "
            "their ledgers.",
            (_rate("sent_bytes_total", "topic"), "{{topic}}"),
            unit="Bps",
            width=12,
        ),
        lines(
            "Changelog bytes per event",
            "What an act costs the brokers: a row, and a ledger with what it published. 5 KB with "
            "a list each, far less in a backlog.",
            (
                _each(_rate("sent_bytes_total", "", 'topic="user-state"'), _FOLDED),
                "user-state",
            ),
            unit="bytes",
            low=0,
            width=12,
        ),
    ],
)

PROCESS = Row(
    "Tracing and process",
    [
        lines(
            "Spans",
            "Nothing with PREFSTREAM_TRACING off. failed: the collector does not answer, and they "
            "are gone.",
            (_rate("spans_total", "outcome"), "{{outcome}}"),
            unit="reqps",
            low=0,
            colours=(("failed", RED),),
        ),
        lines(
            "Open files, of those allowed",
            "Close to the limit, RocksDB cannot open its tables: raise it (ulimit -n).",
            (
                f'process_open_fds{{job="prefstream",{HERE}}} '
                '/ process_max_fds{job="prefstream"}',
                "{{instance}}",
            ),
            unit="percentunit",
            low=0,
        ),
        lines(
            "Partitions held",
            "Uneven: give each worker a static PREFSTREAM_INSTANCE_ID; a sum below the topic's: "
            "see on-call.",
            (f"prefstream_assigned_partitions{{{HERE}}}", "{{instance}}"),
            low=0,
            links=(("On call", "prefstream-on-call"),),
        ),
    ],
)

MODELS = Row(
    "Trained models",
    [
        table(
            "Models in use",
            "By kind and version. Workers that say different things for longer than a minute have "
            "not all followed a switch.",
            f"prefstream_model_info{{{HERE}}}",
        ),
        lines(
            "In use for, and another one waiting for",
            "Waiting: the folder holds a model that is not in use, refused or not whole yet. The "
            "log says why.",
            (
                f"min by (kind) (time() - prefstream_model_taken_timestamp_seconds{{{HERE}}})",
                "{{kind}} in use",
            ),
            (f"max by (kind) (prefstream_model_pending_seconds{{{HERE}}})", "{{kind}} waiting"),
            unit="s",
            low=0,
        ),
        lines(
            "Swaps and refusals in an hour",
            "Each worker counts for itself.",
            (
                f"sum by (kind) (increase(prefstream_model_swaps_total{{{HERE}}}[1h]))",
                "{{kind}} swapped",
            ),
            (
                f"sum by (kind, reason) (increase(prefstream_model_refusals_total{{{HERE}}}[1h]))",
                "{{kind}} refused: {{reason}}",
            ),
            low=0,
        ),
    ],
)

ENGINEER = Dashboard(
    uid="prefstream-engineer",
    title="prefstream / engineer",
    description="What each part does, what it costs, and what it holds.",
    variables=(INSTANCE,),
    rows=(
        Row(
            "",
            [
                text(
                    "**For whoever builds and sizes it.** What each part does, what it costs and "
                    "what it holds. For what is wrong right now see *on call*; sizes to expect "
                    "are in `deploy/OPERATIONS.md`.",
                    height=2,
                )
            ],
        ),
        RUNNING,
        FLOW,
        STAGES,
        ENCODER,
        INDEX,
        STATE,
        MODELS,
        PROCESS,
    ),
)
