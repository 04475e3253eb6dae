"""Spans to an OpenTelemetry collector, by OTLP over HTTP, as the variables ``OTEL_*`` say."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

from stream.tracing import Export, Span, TraceContext


class TracingUnavailable(RuntimeError):
    """Tracing is wanted and its packages are not there; the text says which."""


class _Ids:
    """The ids of spans: the one that was set for the next, or any."""

    def __init__(self) -> None:
        self.next_span_id = 0

    def generate_span_id(self) -> int:
        found, self.next_span_id = self.next_span_id, 0
        return found or random.getrandbits(63) + 1

    def generate_trace_id(self) -> int:
        return random.getrandbits(127) + 1

    def is_trace_id_random(self) -> bool:
        return True


#: Called by the exporter's thread with what became of how many spans.
OnExport = Callable[[Literal["sent", "failed"], int], None]


class Told:
    """A span exporter of OpenTelemetry's, and what is told of how it fares."""

    def __init__(self, exporter: Any, on_export: OnExport) -> None:
        self._exporter, self._on_export = exporter, on_export

    def export(self, spans: Sequence[Any]) -> Any:
        result = self._exporter.export(spans)
        self._on_export("sent" if result.name == "SUCCESS" else "failed", len(spans))
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return bool(self._exporter.force_flush(timeout_millis))


def otlp(tier: str, on_export: OnExport) -> Export:
    """Return where spans of a tier go; raises TracingUnavailable.

    They are gathered and sent by a thread, the last at the exit; what cannot be sent is dropped and
    logged, and keeps nobody waiting.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise TracingUnavailable(
            f"setting tracing=True: {error.name} is not installed; pip install prefstream[tracing]"
        ) from None
    return exporting(BatchSpanProcessor(cast(Any, Told(OTLPSpanExporter(), on_export))), tier)


def exporting(processor: Any, tier: str) -> Export:
    """Return the same for a span processor of OpenTelemetry's."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Link, SpanKind

    ids = _Ids()
    service = os.environ.get("OTEL_SERVICE_NAME") or f"prefstream-{tier}"
    provider = TracerProvider(
        resource=Resource.create({"service.name": service}),
        id_generator=cast(Any, ids),  # theirs is a class to derive from
    )
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("prefstream")

    def export(span: Span) -> None:
        ids.next_span_id = int(span.span_id, 16) if span.span_id else 0
        started = tracer.start_span(
            span.name,
            context=_within(_remote(span.parent)) if span.parent else _within(None),
            kind=SpanKind.PRODUCER if span.parent else SpanKind.CONSUMER,
            links=[Link(_remote(context)) for context in span.links],
            start_time=span.start_ns,
            attributes={"messaging.system": "kafka"},
        )
        for name, start_ns, end_ns in span.parts:
            within = _within(started.get_span_context())
            tracer.start_span(name, context=within, start_time=start_ns).end(end_ns)
        started.end(span.end_ns)

    return export


def _remote(context: TraceContext) -> Any:
    from opentelemetry.trace import SpanContext, TraceFlags

    return SpanContext(
        int(context.trace_id, 16),
        int(context.span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(context.flags & 0xFF),
    )


def _within(parent: Any) -> Any:
    """Return the context of a span's children; None is none, whatever runs now."""
    from opentelemetry.context import Context
    from opentelemetry.trace import NonRecordingSpan, set_span_in_context

    return set_span_in_context(NonRecordingSpan(parent), Context()) if parent else Context()
