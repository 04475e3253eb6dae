"""Failures: what a stage gives up on becomes part of its commit."""

from __future__ import annotations

from stream.agents.reports import BatchReport
from stream.dead_letters import DeadLetters, Failure
from stream.delivery import SourceMessage
from stream.engine.commits import Effect
from stream.messages import output_id


class Failures:
    """Makes dead letters; they are sent with the stage's other outputs, exactly once."""

    def __init__(self, dead_letters: DeadLetters, stage: str) -> None:
        self._dead_letters = dead_letters
        self._stage = stage
        self.n_failed = 0

    def effect(self, message: SourceMessage, error: Exception, report: BatchReport) -> Effect:
        """Return the dead letter of a message, and note it in the report."""
        self.n_failed += 1
        failure = Failure(message, error, self._stage)
        report.failures.append(failure)
        output = self._dead_letters.output_of(failure)
        effect_id = output_id("dead-letter", message.topic, message.partition, message.offset)
        return Effect(effect_id, output.topic, output.key, output.value, None, output.headers)
