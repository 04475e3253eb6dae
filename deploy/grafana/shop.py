"""The shop's dashboard: what shoppers get, how fresh it is, and what they make of it."""

from __future__ import annotations

from deploy.grafana.panels import (
    GREEN,
    INSTANCE,
    ORANGE,
    RED,
    Dashboard,
    Row,
    lines,
    shares,
    stat,
    table,
    text,
)

HERE = 'instance=~"$instance"'
#: From the act to its list, in seconds: below each bound, and later than all.
_AGES = ((None, "0.1"), ("0.1", "0.25"), ("0.25", "1"), ("1", "10"))


def _acts(kind: str, window: str) -> str:
    """Return how many acts of a kind a second name the list that they follow."""
    return f'sum(rate(prefstream_acts_total{{{HERE},type="{kind}",list="yes"}}[{window}]))'


def _per_impression(kind: str, window: str) -> str:
    """Return acts per impression; nothing while no list is seen."""
    return f"{_acts(kind, window)} / ({_acts('impression', window)} > 0)"


def _rate(metric: str, by: str, *matchers: str, window: str = "$__rate_interval") -> str:
    within = ",".join((HERE, *matchers))
    return f"sum by ({by}) (rate(prefstream_{metric}{{{within}}}[{window}]))"


def _ages(part: str, *matchers: str) -> str:
    within = ",".join((HERE, 'topic="recommendations"', *matchers))
    return f"sum(rate(prefstream_end_to_end_seconds_{part}{{{within}}}[$__rate_interval]))"


def _aged(at_most_s: str | None) -> str:
    """Return how many lists a second are at most so old, all of them for None."""
    if at_most_s is None:
        return _ages("count")
    return _ages("bucket", f'le="{float(at_most_s)!r}"')


def _between(above: str | None, below: str) -> tuple[str, str]:
    if above is None:
        return _aged(below), f"within {below} s"
    return f"{_aged(below)} - {_aged(above)}", f"{above} to {below} s"


def _quantile(q: str, topic: str) -> str:
    rate = f'rate(prefstream_end_to_end_seconds_bucket{{{HERE},topic="{topic}"}}[$__rate_interval])'
    return f"histogram_quantile({q}, sum by (le) ({rate}))"


def _outputs(topic: str) -> str:
    return f'sum(rate(prefstream_outputs_total{{{HERE},topic="{topic}"}}[$__rate_interval]))'


_FOR_SALE = f"max(prefstream_index_items{{{HERE}}})"
_LISTED = f"max(prefstream_recommended_distinct_items{{{HERE}}})"
_SHOWN = f"{_LISTED} / ({_FOR_SALE} > 0)"


def _moved(by: str, window: str, *matchers: str) -> str:
    """Return how many shoppers came into a band within a time."""
    within = ",".join((HERE, *matchers))
    return f"sum by ({by}) (increase(prefstream_churn_risks_total{{{within}}}[{window}]))"


_HIGH, _CHANGED = 'band="high"', 'previous!="none"'
_BAND_COLOURS = (("low", GREEN), ("medium", ORANGE), ("high", RED))

NOW = Row(
    "Now",
    [
        stat(
            "Lists a second",
            "Recommendations published. Far below what is usual at this hour: are acts coming in "
            "(next figure)? If so, ask whoever is on call.",
            _outputs("recommendations"),
            "reqps",
            decimals=1,
        ),
        stat(
            "Acts a second",
            "What shoppers do, as the shop tells it. None: the shop's producer is silent.",
            f"sum(rate(prefstream_acts_total{{{HERE}}}[$__rate_interval]))",
            "reqps",
            decimals=1,
        ),
        stat(
            "Fresh lists",
            "Share of lists out within a quarter of a second of their act. Below 99 %: see the "
            "age of lists; on-call has its alerts by the same measure, but from the broker on.",
            f"{_aged('0.25')} / ({_aged(None)} > 0)",
            "percentunit",
            decimals=1,
            limits=((None, RED), (0.9, ORANGE), (0.99, GREEN)),
            links=(("On call", "prefstream-on-call"),),
        ),
        stat(
            "Click-through, 1 h",
            "Clicks per impression, of acts that name their list (`recommendation_id`). Nothing: "
            "the shop sends no impressions with it. Compare with days before, not with other "
            "shops.",
            _per_impression("click", "1h"),
            "percentunit",
            decimals=2,
        ),
        stat(
            "Catalogue shown, 1 h",
            "Items listed in the last hour, each once, as a share of those for sale; with several "
            "workers the largest worker's, so at least that. Small for long: raise "
            "PREFSTREAM_DIVERSITY, or lists are few.",
            _SHOWN,
            "percentunit",
            decimals=1,
        ),
        stat(
            "Now at high risk, 24 h",
            "Shoppers who came into the band of high churn risk, from another one. Their names "
            "are in the topic churn-risk, for whoever writes to them.",
            f"sum({_moved('band', '24h', _HIGH, _CHANGED)})",
            decimals=0,
        ),
    ],
)

LISTS = Row(
    "Lists",
    [
        shares(
            "Lists by age",
            "From the act to its list. The old ones growing: more comes in than is answered, or "
            "producers send late; the engineer's dashboard tells the two apart.",
            *(_between(above, below) for above, below in _AGES),
            (f"{_aged(None)} - {_aged('10')}", "later than 10 s"),
            unit="reqps",
            width=12,
            links=(("Engineer", "prefstream-engineer"),),
            colours=(
                ("within 0.1 s", GREEN),
                ("0.1 to 0.25 s", "semi-dark-green"),
                ("0.25 to 1 s", "yellow"),
                ("1 to 10 s", ORANGE),
                ("later than 10 s", RED),
            ),
        ),
        lines(
            "Age of a list",
            "Half of all lists are younger than p50, all but one in a hundred younger than p99.",
            (_quantile("0.5", "recommendations"), "p50"),
            (_quantile("0.95", "recommendations"), "p95"),
            (_quantile("0.99", "recommendations"), "p99"),
            unit="s",
            low=0,
            width=12,
        ),
        shares(
            "What found the items",
            "If one source finds nearly all, the others are starved: is what is taken together "
            "counted (neighbours), do items have texts?",
            (
                _rate("recommended_items_total", "source"),
                "{{source}}",
            ),
            unit="reqps",
            width=12,
        ),
        lines(
            "Lists for shoppers nothing is known of",
            "Share made from popularity and stated interests alone. High: most shoppers are new, "
            "or acts come under ids that change (sessions, not users).",
            (
                f"sum(rate(prefstream_recommendations_cold_start_total{{{HERE}}}"
                "[$__rate_interval])) / "
                f"({_outputs('recommendations')} > 0)",
                "cold start",
            ),
            unit="percentunit",
            low=0,
            width=12,
        ),
    ],
)

FEEDBACK = Row(
    "What shoppers make of their lists",
    [
        lines(
            "Per impression of a listed item",
            "Of acts that name their list. A fall in all of them after a release: go back. A fall "
            "in click alone: look at the lists with `prefstream explain USER`.",
            (_per_impression("click", "15m"), "click"),
            (_per_impression("add_to_cart", "15m"), "add to cart"),
            (_per_impression("purchase", "15m"), "purchase"),
            unit="percentunit",
            low=0,
        ),
        shares(
            "Acts that name their list, without impressions",
            "What came of lists. Falling beside steady lists: they are shown, and not wanted, or "
            "no longer shown. Dislikes: what is being shown?",
            (
                _rate("acts_total", "type", 'list="yes"', 'type!="impression"') + " > 0",
                "{{type}}",
            ),
            unit="reqps",
        ),
        lines(
            "Share of acts that came by a list",
            "How much of what shoppers do the lists have a part in. Near 0 for all: the shop does "
            "not send `recommendation_id`, and the figures beside it speak for few.",
            *(
                (
                    f'sum(rate(prefstream_acts_total{{{HERE},type="{kind}",list="yes"}}[15m])) / '
                    f'(sum(rate(prefstream_acts_total{{{HERE},type="{kind}"}}[15m])) > 0)',
                    kind.replace("_", " "),
                )
                for kind in ("click", "add_to_cart", "purchase")
            ),
            unit="percentunit",
            low=0,
        ),
        lines(
            "Items for sale, and items shown",
            "Recommendable now, and listed in the last hour. A fall of those for sale: a feed has "
            "marked items sold out or taken them out.",
            (_FOR_SALE, "for sale"),
            (_LISTED, "listed in the last hour"),
            low=0,
            width=12,
        ),
        lines(
            "Share of the catalogue shown",
            "Of one worker; with several, of the one that shows most.",
            (_SHOWN, "shown in the last hour"),
            unit="percentunit",
            low=0,
            width=12,
        ),
    ],
)

CHURN = Row(
    "Churn",
    [
        lines(
            "Shoppers who changed band, per hour, by where they went",
            "Without first assessments. A wave into high: a bad delivery, a price, a broken "
            "checkout; or the shop's producer has been silent, which looks the same.",
            (
                _moved("band", "1h", _CHANGED),
                "{{band}}",
            ),
            low=0,
            colours=_BAND_COLOURS,
        ),
        lines(
            "First assessments, per hour, by band",
            "New shoppers, and all of them once after the state was built anew.",
            (
                _moved("band", "1h", 'previous="none"'),
                "{{band}}",
            ),
            low=0,
            colours=_BAND_COLOURS,
        ),
        table(
            "From band to band, 24 h",
            "How many went which way, and whether by what they did (event) or by their silence "
            "(timer).",
            f"sort_desc(round({_moved('previous, band, cause', '24h', _CHANGED)}) > 0)",
            values="shoppers",
        ),
    ],
)

WORDS = Row(
    "Reviews and searches",
    [
        shares(
            "Reviews by what their text says",
            "Nothing without a sentiment model (PREFSTREAM_SENTIMENT_MODEL). A jump of the "
            "negative ones is a bad delivery, or reviews in a language that the model has not "
            "learnt.",
            (
                _rate("review_sentiments_total", "sentiment"),
                "{{sentiment}}",
            ),
            unit="reqps",
            colours=(("positive", GREEN), ("negative", RED)),
        ),
        shares(
            "Searches answered, by what found the best item",
            "meaning: no item has the words, so the nearest were shown: what do shoppers ask for "
            "that is not for sale? nothing: the catalogue was empty.",
            (
                _rate("search_answers_total", "found_by") + " > 0",
                "{{found_by}}",
            ),
            unit="reqps",
            colours=(("both", GREEN), ("words", "blue"), ("meaning", ORANGE), ("nothing", RED)),
        ),
        lines(
            "Age of an answer to a search",
            "From the search to its answer; a shopper waits for it. Above half a second: the "
            "encoder, mostly.",
            (_quantile("0.5", "search-results"), "p50"),
            (_quantile("0.99", "search-results"), "p99"),
            unit="s",
            low=0,
        ),
    ],
)

SHOP = Dashboard(
    uid="prefstream-shop",
    title="prefstream / shop",
    description="What shoppers get, how fresh it is, and what they make of it.",
    since="now-3h",
    refresh="30s",
    variables=(INSTANCE,),
    rows=(
        Row(
            "",
            [
                text(
                    "**For whoever runs the shop.** What shoppers get, how fresh it is, and what "
                    "they make of it. Click-through and shares count acts that carry the "
                    "`recommendation_id` of the list that was shown: send it with impressions and "
                    "clicks. Each panel's *i* says what to do."
                )
            ],
        ),
        NOW,
        LISTS,
        FEEDBACK,
        CHURN,
        WORDS,
    ),
)
