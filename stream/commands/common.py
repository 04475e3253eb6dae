"""What the commands share: settings, and failures in one line."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stream.settings import Settings


class CommandFailed(Exception):
    """What the person has to know, in one line, and the exit code."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(" ".join(message.split()))
        self.code = code


def settings_of(**overrides: object) -> Settings:
    """Return the settings; raise CommandFailed naming what is wrong. None means not given."""
    from stream.settings import BadSettings, load_settings

    try:
        return load_settings(**{k: v for k, v in overrides.items() if v is not None})
    except BadSettings as error:
        raise CommandFailed(str(error), 2) from None


@contextmanager
def one_line(*expected: type[Exception]) -> Iterator[None]:
    """Turn the expected errors into one line; anything else is a bug and keeps its traceback."""
    try:
        yield
    except expected as error:
        raise CommandFailed(str(error) or type(error).__name__) from error


@contextmanager
def broker_errors(settings: Settings) -> Iterator[None]:
    """Turn what goes wrong between us and the broker into one line that names it."""
    from aiokafka.errors import KafkaConnectionError, KafkaError

    from stream.connection import AccessRefused, refusal

    broker = settings.broker

    # The client logs each failed attempt itself; the line at the end says it once.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    try:
        yield
    except AccessRefused as error:
        raise CommandFailed(str(error)) from error
    except KafkaConnectionError as error:
        refused = asyncio.run(refusal(settings))
        raise CommandFailed(str(refused or f"no broker answers at {broker}")) from error
    except KafkaError as error:
        raise CommandFailed(f"broker {broker}: {error}") from error
    except (OSError, LookupError) as error:
        raise CommandFailed(f"broker {broker}: {error}") from error
