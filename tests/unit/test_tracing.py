"""Trace contexts in headers, and spans as OpenTelemetry's SDK has them."""

from __future__ import annotations

import sys

import pytest

from stream.otel import Told, TracingUnavailable, exporting, otlp
from stream.tracing import Span, TraceContext, context_of

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CONTEXT = TraceContext(TRACE, SPAN, 1)


def parent(text: str) -> tuple[tuple[str, bytes], ...]:
    return (("other", b"x"), ("traceparent", text.encode()))


def test_a_context_is_read_and_written_as_it_is():
    headers = (*parent(f"00-{TRACE}-{SPAN}-01"), ("tracestate", b"vendor=1"))
    found = context_of(headers)
    assert found == TraceContext(TRACE, SPAN, 1, b"vendor=1")
    assert found is not None
    assert found.headers() == headers[1:]
    assert context_of(CONTEXT.headers()) == CONTEXT


@pytest.mark.parametrize(("n_bytes", "carried"), [(512, 512), (513, 0)])
def test_state_is_carried_as_far_as_everybody_must(n_bytes, carried):
    found = context_of((*parent(f"00-{TRACE}-{SPAN}-01"), ("tracestate", b"a" * n_bytes)))
    assert found is not None
    assert len(found.state) == carried


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"00-{TRACE}-{SPAN}-00", TraceContext(TRACE, SPAN, 0)),
        (f"01-{TRACE}-{SPAN}-01-more", CONTEXT),
        (f"00-{TRACE}-{SPAN}-01-more", None),
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"00-{TRACE.upper()}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE}-{SPAN}", None),
        ("", None),
    ],
)
def test_what_is_no_context_is_none(text, expected):
    assert context_of(parent(text)) == expected


def test_no_header_and_a_null_one_are_none():
    assert context_of(()) is None
    assert context_of((("traceparent", None),)) is None  # type: ignore[arg-type]


def test_a_child_follows_from_its_parent_and_its_cause():
    assert CONTEXT.child("a") == CONTEXT.child("a")
    children = {
        CONTEXT.child("a"),
        CONTEXT.child("b"),
        TraceContext(TRACE, SPAN[::-1], 1).child("a"),
    }
    assert len({child.span_id for child in children}) == 3
    assert {child.trace_id for child in children} == {TRACE}
    assert all(context_of(child.headers()) == child for child in children)


def test_spans_have_the_ids_that_the_headers_tell():
    pytest.importorskip("opentelemetry.sdk", reason="needs prefstream[tracing]")
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    export = exporting(SimpleSpanProcessor(exporter), "preference")
    child = CONTEXT.child("recommendation-1")
    export(Span("publish recommendations", 1000, 2000, CONTEXT, child.span_id))
    export(Span("batch", 1000, 3000, links=[CONTEXT], parts=[("fold", 1000, 1500)]))
    published, fold, batch = exporter.get_finished_spans()
    assert f"{published.context.span_id:016x}" == child.span_id
    assert f"{published.context.trace_id:032x}" == TRACE
    assert f"{published.parent.span_id:016x}" == SPAN
    assert (published.start_time, published.end_time) == (1000, 2000)
    assert published.resource.attributes["service.name"] == "prefstream-preference"
    assert batch.parent is None
    assert f"{batch.links[0].context.span_id:016x}" == SPAN
    assert fold.parent.span_id == batch.context.span_id
    assert (fold.name, fold.start_time, fold.end_time) == ("fold", 1000, 1500)


def test_a_trace_that_is_not_kept_by_its_maker_is_not_kept_here():
    pytest.importorskip("opentelemetry.sdk", reason="needs prefstream[tracing]")
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    export = exporting(SimpleSpanProcessor(exporter), "preference")
    export(Span("publish", 1, 2, TraceContext(TRACE, SPAN, 0), SPAN[::-1]))
    assert exporter.get_finished_spans() == ()


def test_how_many_spans_arrive_and_how_many_do_not_is_told():
    pytest.importorskip("opentelemetry.sdk", reason="needs prefstream[tracing]")
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    told: list[tuple[str, int]] = []
    exporter = InMemorySpanExporter()
    processor = SimpleSpanProcessor(Told(exporter, lambda *what: told.append(what)))
    export = exporting(processor, "preference")
    export(Span("batch", 1000, 3000, parts=[("fold", 1000, 1500)]))
    exporter.shutdown()  # from now on it refuses
    export(Span("batch", 1000, 3000))
    assert told == [("sent", 1), ("sent", 1), ("failed", 1)]


def test_the_exporter_is_that_of_the_extra():
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="needs the extra")
    assert callable(otlp("preference", lambda *_: None))


def test_without_the_extra_the_setting_says_what_to_install(monkeypatch):
    module = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        TracingUnavailable, match=r"tracing=True: .* pip install prefstream\[tracing"
    ):
        otlp("preference", lambda *_: None)
