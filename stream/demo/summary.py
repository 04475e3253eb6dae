"""What a person sees of the demo: a line per recommendation, and the table at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from stream.demo.observer import Assessed, Report, Seen
from stream.demo.shoppers import Act, Crowd
from stream.explain import because
from stream.settings import Settings

Titles = Callable[[str], str]

_DID = {
    "view": "looked at",
    "click": "clicked",
    "add_to_cart": "put in the cart",
    "purchase": "bought",
    "dislike": "disliked",
}


def act_text(act: Act, title: Titles) -> str:
    """Return an act in words: *looked at “Molina espresso cups”*."""
    if act.topic == "searches":
        return f"searched “{getattr(act.event, 'query', '')}”"
    item = f"“{title(str(getattr(act.event, 'item_id', '')))}”"
    if act.topic == "reviews":
        return f"gave {getattr(act.event, 'rating', 0):.0f} of 5 stars to {item}"
    kind = str(getattr(act.event, "type", ""))
    return f"{_DID.get(kind, kind)} {item}"


def recommendation_line(seen: Seen, title: Titles, n_items: int = 3) -> Text:
    """Return *user, act → top items, because …, N ms*."""
    items = ", ".join(title(item["item_id"]) for item in seen.items[:n_items])
    line = Text.assemble(
        (seen.act.user_id, "bold cyan"),
        f" {act_text(seen.act, title)} → ",
        (items, "bold"),
        (f"  because {_reasons(seen.items[:n_items], title)}", "dim"),
        (f"  {seen.latency_ms:.0f} ms", "green"),
    )
    if seen.cold_start:
        line.append("  (cold start)", "yellow")
    return line


def stranger_line(message: Mapping[str, Any], title: Titles, n_items: int = 3) -> Text:
    """Return the line for a recommendation whose act nobody here has sent."""
    items = message["items"][:n_items]
    return Text.assemble(
        (message["user_id"], "bold cyan"),
        f" event {message['trigger']['event_id']} of {message['trigger']['topic']} → ",
        (", ".join(title(item["item_id"]) for item in items), "bold"),
        (f"  because {_reasons(items, title)}", "dim"),
    )


def churn_line(assessed: Assessed) -> Text:
    """Return *user: churn risk low → high (0.81)* with what drove it most."""
    before = f"{assessed.previous_band} → " if assessed.previous_band else ""
    drivers = sorted(assessed.drivers, key=lambda each: -abs(each["contribution"]))[:2]
    why = ", ".join(f"{each['feature']} {each['value']:.3g}" for each in drivers)
    return Text.assemble(
        (assessed.user_id, "bold cyan"),
        " churn risk ",
        (f"{before}{assessed.band}", "magenta"),
        f" ({assessed.probability:.2f})",
        (f"  because {why}" if why else "", "dim"),
    )


def summary_table(report: Report, *, n_poison: int, first_s: float | None) -> Table:
    """Return the table that ends the demo. ``first_s``: from the start to the first list."""
    table = Table(title="The demo, as an outside consumer saw it", show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    for name, value in _rows(report, n_poison, first_s):
        table.add_row(name, value)
    return table


def serving_lines(settings: Settings, crowd: Crowd) -> list[str]:
    """Return where the demo that stays up is reached, and how to put in an event by hand."""
    item_id = next(iter(crowd.shop.items))
    event = (
        f'{{"event_id":"my-1","user_id":"me","item_id":"{item_id}","type":"click",'
        f"\"event_time_ms\":'$(date +%s)'000}}"
    )
    host, port, prefix = settings.metrics_host, settings.metrics_port, settings.topic_prefix
    where = f"PREFSTREAM_BROKER={settings.broker}"
    if prefix:
        where += f" PREFSTREAM_TOPIC_PREFIX={prefix}"
    return [
        f"\nThe shop stays open until Ctrl-C. Broker: {settings.broker}",
        f"Metrics: http://{host}:{port}/metrics (encode), http://{host}:{port + 1}/metrics",
        f"Put in a click on “{crowd.shop.title(item_id)}” and see the answer here:",
        f"  echo 'me|{event}' | kcat -P -b {settings.broker} -t {prefix}clickstream -K '|' "
        "-X topic.partitioner=murmur2_random",
        f"and ask why: {where} prefstream explain me\n",
    ]


def _rows(report: Report, n_poison: int, first_s: float | None) -> list[tuple[str, str]]:
    k = report.k
    bands = ", ".join(f"{report.bands.get(band, 0)} {band}" for band in ("low", "medium", "high"))
    return [
        ("events sent", f"{report.n_events}"),
        ("recommendations received", f"{report.n_recommendations}"),
        ("acts without an answer", f"{report.n_unanswered}"),
        ("act sent to list received, p50", _ms(report.p50_ms)),
        ("act sent to list received, p99", _ms(report.p99_ms)),
        ("  of these searches and reviews, p50", _ms(report.text_p50_ms)),
        ("  of these searches and reviews, p99", _ms(report.text_p99_ms)),
        ("dead letters (poison messages sent)", f"{report.n_dead_letters} ({n_poison})"),
        (f"first {k} that fit the shopper's taste", _share(report.hit_rate)),
        (f"the {k} most popular that would have fit", _share(report.popular_hit_rate)),
        ("lists that followed a changed taste", f"{report.n_followed} of {report.n_switched}"),
        ("acts until they followed, median", _number(report.acts_to_follow)),
        ("churn risk, shoppers by band", bands),
        ("lists made by", ", ".join(sorted(report.rankers)) or "-"),
        ("churn risks made by", ", ".join(sorted(report.churn_models)) or "-"),
        ("first recommendation after", "none came" if first_s is None else f"{first_s:.1f} s"),
    ]


def _reasons(items: Sequence[dict[str, Any]], title: Titles) -> str:
    """Return the strongest reason of each item, each said once."""
    said = [because(item["reasons"][0], title) for item in items if item["reasons"]]
    return " and ".join(dict.fromkeys(said)) or "nothing else is known"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} ms"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"
