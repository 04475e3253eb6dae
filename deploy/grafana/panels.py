"""What dashboards are made of: panels in Grafana's JSON model, laid out in rows.

Only what the three dashboards need. A panel says in its description what to do when it looks bad.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Json = dict[str, Any]

SOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}
#: Grafana's columns.
WIDTH = 24
GREEN, ORANGE, RED, BLUE = "green", "orange", "red", "blue"


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL expression, and the legend of each series that it gives."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel; ``limits`` are (value, colour) from where on a colour holds, the first is None."""

    kind: Literal["stat", "timeseries", "heatmap", "table", "text"]
    title: str
    description: str
    queries: tuple[Query, ...] = ()
    unit: str = "short"
    width: int = 8
    height: int = 8
    limits: tuple[tuple[float | None, str], ...] = ()
    decimals: int | None = None
    low: float | None = None
    high: float | None = None
    stacked: bool = False
    bars: bool = False
    #: Colours of series, by their legends.
    colours: tuple[tuple[str, str], ...] = ()
    #: What values are called: (value, text, colour).
    names: tuple[tuple[str, str, str], ...] = ()
    text: str = ""
    #: Of a table: what its column of values is called; empty, and it has none.
    values: str = ""
    #: (title, uid of another dashboard).
    links: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A dashboard for one kind of person; ``uid`` is what links and URLs name it by."""

    uid: str
    title: str
    description: str
    rows: Sequence[Row]
    since: str = "now-30m"
    refresh: str = "10s"
    variables: Sequence[Json] = field(default_factory=tuple)

    def to_json(self) -> Json:
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": ["prefstream"],
            "timezone": "browser",
            "editable": True,
            "graphTooltip": 1,
            "schemaVersion": 39,
            "version": 1,
            "refresh": self.refresh,
            "time": {"from": self.since, "to": "now"},
            "timepicker": {},
            "links": [_LINK_TO_THE_OTHERS],
            "annotations": {"list": [_ALERTS]},
            "templating": {"list": [DATASOURCE, *self.variables]},
            "panels": _laid_out(self.rows),
        }


DATASOURCE: Json = {
    "name": "datasource",
    "label": "Data source",
    "type": "datasource",
    "query": "prometheus",
    "current": {},
    "hide": 0,
    "refresh": 1,
}
_LINK_TO_THE_OTHERS: Json = {
    "type": "dashboards",
    "title": "prefstream",
    "tags": ["prefstream"],
    "asDropdown": False,
    "includeVars": True,
    "keepTime": True,
    "targetBlank": False,
}
_ALERTS: Json = {
    "name": "Alerts",
    "enable": True,
    "iconColor": "red",
    "datasource": SOURCE,
    "expr": 'ALERTS{alertname=~"Prefstream.+",alertstate="firing"}',
    "titleFormat": "{{alertname}}",
    "textFormat": "{{instance}} {{topic}}",
    "step": "15s",
}


def variable(name: str, label: str, metric: str) -> Json:
    """Return a variable: which values a label called ``name`` has on a metric, all at first."""
    query = f"label_values({metric}, {name})"
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "sort": 1,
        "hide": 0,
    }


INSTANCE = variable("instance", "Worker", "prefstream_build_info")
GROUP = variable("group", "Consumer group", "prefstream_consumer_lag")


def stat(title: str, description: str, expr: str, unit: str = "short", **more: Any) -> Panel:
    """Return one figure, as it is now."""
    legend = more.pop("legend", "")
    fields = {"width": 4, "height": 4, "limits": ((None, BLUE),), **more}
    return Panel("stat", title, description, (Query(expr, legend),), unit, **fields)


def lines(
    title: str, description: str, *queries: tuple[str, str], unit: str = "short", **more: Any
) -> Panel:
    """Return curves over time; each query is (expression, legend)."""
    return Panel("timeseries", title, description, tuple(Query(*q) for q in queries), unit, **more)


def shares(title: str, description: str, *queries: tuple[str, str], **more: Any) -> Panel:
    """Return areas on top of one another."""
    return lines(title, description, *queries, stacked=True, **{"low": 0, **more})


def heatmap(title: str, description: str, expr: str, **more: Any) -> Panel:
    """Return where the values of a histogram lie over time; ``expr`` is by ``le``."""
    return Panel("heatmap", title, description, (Query(expr, "{{le}}"),), "s", **more)


def table(title: str, description: str, *exprs: str, **more: Any) -> Panel:
    """Return the labels of what there is now, a line each."""
    return Panel("table", title, description, tuple(Query(expr) for expr in exprs), **more)


def text(content: str, height: int = 3) -> Panel:
    """Return some lines in Markdown: whom the dashboard is for, and how to read it."""
    return Panel("text", "", "", text=content, width=WIDTH, height=height)


def wide(panel: Panel, width: int, height: int | None = None) -> Panel:
    """Return the panel at another size."""
    return replace(panel, width=width, height=height or panel.height)


# --- Grafana's JSON ------------------------------------------------------------------------------


def _laid_out(rows: Sequence[Row]) -> list[Json]:
    """Return rows and panels with ids and places: from left to right, then below."""
    panels: list[Json] = []
    y = 0
    for row in rows:
        if row.title:
            panels.append(_row(len(panels) + 1, row.title, y))
            y += 1
        x = line_height = 0
        for panel in row.panels:
            if x + panel.width > WIDTH:
                x, y = 0, y + line_height
                line_height = 0
            place = {"h": panel.height, "w": panel.width, "x": x, "y": y}
            panels.append({"id": len(panels) + 1, **_panel(panel), "gridPos": place})
            x += panel.width
            line_height = max(line_height, panel.height)
        y += line_height
    return panels


def _row(number: int, title: str, y: int) -> Json:
    place = {"h": 1, "w": WIDTH, "x": 0, "y": y}
    shown = {"type": "row", "title": title, "collapsed": False}
    return {"id": number, **shown, "gridPos": place, "panels": []}


def _panel(panel: Panel) -> Json:
    if panel.kind == "text":
        options = {"mode": "markdown", "content": panel.text}
        return {"type": "text", "title": "", "transparent": True, "options": options}
    made: Json = {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": SOURCE,
        "targets": [_target(n, query, panel) for n, query in enumerate(panel.queries)],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": _overrides(panel)},
        "options": _options(panel),
    }
    if panel.links:
        made["links"] = [
            {
                "title": title,
                "url": f"/d/{uid}?${{__url_time_range}}&${{datasource:queryparam}}",
                "targetBlank": False,
            }
            for title, uid in panel.links
        ]
    if panel.kind == "table":
        made["transformations"] = _columns(len(panel.queries), panel.values)
    return made


def _target(number: int, query: Query, panel: Panel) -> Json:
    made = {
        "refId": chr(ord("A") + number),
        "datasource": SOURCE,
        "editorMode": "code",
        "expr": query.expr,
        "legendFormat": query.legend,
    }
    if panel.kind == "table":
        return {**made, "format": "table", "instant": True, "range": False}
    if panel.kind == "heatmap":
        return {**made, "format": "heatmap", "range": True}
    is_stat = panel.kind == "stat"
    return {**made, "instant": is_stat, "range": not is_stat}


def _defaults(panel: Panel) -> Json:
    made: Json = {"unit": panel.unit}
    for name, value in (("decimals", panel.decimals), ("min", panel.low), ("max", panel.high)):
        if value is not None:
            made[name] = value
    if panel.limits:
        steps = [{"color": colour, "value": value} for value, colour in panel.limits]
        made["thresholds"] = {"mode": "absolute", "steps": steps}
    if panel.names:
        options = {value: {"text": told, "color": c} for value, told, c in panel.names}
        made["mappings"] = [{"type": "value", "options": options}]
    if panel.kind == "timeseries":
        made["custom"] = {
            "drawStyle": "bars" if panel.bars else "line",
            "lineWidth": 0 if panel.stacked else 1,
            "fillOpacity": 70 if panel.stacked or panel.bars else 8,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"mode": "normal" if panel.stacked else "none"},
            "thresholdsStyle": {"mode": "dashed" if panel.limits else "off"},
        }
    return made


def _overrides(panel: Panel) -> list[Json]:
    return [
        {
            "matcher": {"id": "byName", "options": legend},
            "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}],
        }
        for legend, colour in panel.colours
    ]


def _options(panel: Panel) -> Json:
    if panel.kind == "stat":
        plain = len(panel.limits) == 1 and not panel.names
        return {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "value" if plain else "background",
            "graphMode": "none",
            "textMode": "value_and_name" if panel.queries[0].legend else "auto",
        }
    if panel.kind == "heatmap":
        return {
            "calculate": False,
            "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64},
            "yAxis": {"unit": panel.unit},
            "cellGap": 1,
            "legend": {"show": True},
            "tooltip": {"mode": "single"},
        }
    if panel.kind == "table":
        return {"showHeader": True, "cellHeight": "sm"}
    return {
        "legend": {"displayMode": "table", "placement": "bottom", "calcs": ["mean", "lastNotNull"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }


def _columns(n_queries: int, values: str) -> list[Json]:
    """Return what makes one table of several queries: labels, and values under a name."""
    # Our own label of a process's tier; the target's says the same.
    hidden = ["Time", "__name__", "job", "exported_tier"]
    hidden += [f"Value #{chr(ord('A') + n)}" for n in range(n_queries)]
    hidden += [f"{name} {n}" for name in ("__name__", "job", "tier") for n in range(1, 4)]
    merged = [{"id": "merge", "options": {}}] if n_queries > 1 else []
    organize: Json = {"excludeByName": dict.fromkeys(hidden, True)}
    if values:
        organize["renameByName"] = {"Value": values}
    else:
        organize["excludeByName"]["Value"] = True
    return [*merged, {"id": "organize", "options": organize}]
