"""Topics on a broker: made, checked against the one table of them, waited for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_delay,
    stop_never,
    wait_exponential_jitter,
)

from stream.connection import client_options, refusal
from stream.settings import Settings
from stream.topic_names import full_name
from stream.topics import TOPICS, TopicSpec

log = logging.getLogger(__name__)

_TIMEOUT_MS = 30_000
_LISTED_WITHIN_S = 10
_ALREADY_THERE = TopicAlreadyExistsError.errno


class TopicsNotCreated(RuntimeError):
    """The broker refused to make topics; the text names each and its reason."""


class BrokerAbsent(RuntimeError):
    """No broker answered within the time that the settings allow."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One way in which a topic is not as it must be; a worker starts only without one that
    ``stops`` it."""

    topic: str
    text: str
    stops: bool = True

    def __str__(self) -> str:
        return f"topic {self.topic}: {self.text}"


@asynccontextmanager
async def admin_client(settings: Settings) -> AsyncIterator[Any]:
    """Connect an admin client; raises KafkaError when there is no broker."""
    client = AIOKafkaAdminClient(**client_options(settings), request_timeout_ms=10_000)
    try:
        await client.start()
        yield client
    finally:
        await client.close()


async def create_topics(settings: Settings) -> list[str]:
    """Make the topics that are missing and return their names; raises TopicsNotCreated."""
    async with admin_client(settings) as admin:
        present = set(await admin.list_topics())
        missing = [spec for spec in TOPICS if full_name(settings, spec.name) not in present]
        if not missing:
            return []
        response = await admin.create_topics(
            [_new_topic(spec, settings) for spec in missing], timeout_ms=_TIMEOUT_MS
        )
        made = [name for name, code, *_ in response.topic_errors if code == 0]
        await _until_listed(admin, made)
    refused = [
        str(Problem(name, f"not made: {_reason(code, *message)}"))
        for name, code, *message in response.topic_errors
        if code not in (0, _ALREADY_THERE)
    ]
    if refused:
        raise TopicsNotCreated("; ".join(refused))
    return made


async def delete_topics(settings: Settings) -> None:
    """Delete every topic whose name begins with the prefix; raises ValueError without a prefix."""
    if not settings.topic_prefix:
        raise ValueError("without a topic prefix every topic of the broker would be deleted")
    async with admin_client(settings) as admin:
        present = await admin.list_topics()
        own = [name for name in present if name.startswith(settings.topic_prefix)]
        if own:
            await admin.delete_topics(own, timeout_ms=_TIMEOUT_MS)


async def _until_listed(admin: Any, names: list[str]) -> None:
    # Kafka's controller answers before its brokers know: a check right after would miss topics.
    # There is nothing to wait on but its answers.
    for _ in range(_LISTED_WITHIN_S * 20):
        if set(names) <= set(await admin.list_topics()):
            return
        await asyncio.sleep(0.05)


def _reason(code: int, message: str | None = None) -> str:
    # Newer brokers say more than their code does.
    name = str(for_code(code).__name__)
    return f"{name}: {message}" if message else name


def _new_topic(spec: TopicSpec, settings: Settings) -> Any:
    return NewTopic(
        name=full_name(settings, spec.name),
        num_partitions=spec.partitions or settings.partitions,
        replication_factor=settings.replication_factor,
        topic_configs=spec.config(),
    )


async def check_topics(settings: Settings) -> list[Problem]:
    """Return what is wrong with the topics: missing, partition counts, how they are compacted.

    A partition count that differs would send one user's events to different workers.
    """
    names = {full_name(settings, spec.name): spec for spec in TOPICS}
    async with admin_client(settings) as admin:
        present = set(await admin.list_topics())
        there = [name for name in names if name in present]
        described = await admin.describe_topics(there) if there else []
        configs = await _configs(admin, there)
    problems = [Problem(name, "missing") for name in names if name not in present]
    for topic in described:
        name = topic["topic"]
        texts = _partition_problems(topic, names[name].partitions or settings.partitions)
        texts += _config_problems(names[name], configs.get(name, {}))
        problems += [Problem(name, text) for text in texts]
        # Made by an earlier version; what a worker does is right all the same.
        advice = _erasing_problems(names[name], configs.get(name, {}))
        problems += [Problem(name, text, stops=False) for text in advice]
    return problems


def _partition_problems(topic: dict[str, Any], expected: int) -> list[str]:
    if topic["error_code"]:
        return [_reason(topic["error_code"])]
    got = len(topic["partitions"])
    if got == expected:
        return []
    return [f"expected {expected} partitions (setting partitions), got {got}"]


def _erasing_problems(spec: TopicSpec, config: dict[str, str]) -> list[str]:
    if not spec.is_erasable:
        return []
    problems: list[str] = []
    expected, got = spec.config(), config.get("max.compaction.lag.ms")
    if got is not None and int(got) > (most := int(expected["max.compaction.lag.ms"])):
        problems.append(
            f"expected max.compaction.lag.ms={most} or less, got {got}: "
            "nothing else bounds when the erased are gone"
        )
    got = config.get("delete.retention.ms")
    if spec.role == "in" and got is not None and int(got) < spec.tombstone_ms:
        problems.append(
            f"expected delete.retention.ms={spec.tombstone_ms} or more, got {got}: "
            "a state built anew would bring the erased back"
        )
    return problems


async def topic_configs(
    settings: Settings, specs: Iterable[TopicSpec]
) -> dict[str, dict[str, str]]:
    """Return the settings of each topic that is there, by its full name, as far as they are told.

    Raises KafkaError when there is no broker.
    """
    async with admin_client(settings) as admin:
        present = set(await admin.list_topics())
        names = [full_name(settings, spec.name) for spec in specs]
        return await _configs(admin, [name for name in names if name in present])


async def _configs(admin: Any, names: list[str]) -> dict[str, dict[str, str]]:
    if not names:
        return {}
    wanted = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    configs: dict[str, dict[str, str]] = {}
    for response in await admin.describe_configs(wanted):
        for resource in response.resources:
            configs[resource[3]] = {entry[0]: entry[1] for entry in resource[4]}
    return configs


def _config_problems(spec: TopicSpec, config: dict[str, str]) -> list[str]:
    # A broker that does not tell its settings cannot be checked.
    problems: list[str] = []
    policy = config.get("cleanup.policy")
    if policy is not None and set(policy.split(",")) != set(spec.cleanup.split(",")):
        problems.append(f"expected cleanup.policy={spec.cleanup}, got {policy}")
    stamped = config.get("message.timestamp.type")
    expected = spec.config().get("message.timestamp.type")
    if expected and stamped is not None and stamped != expected:
        problems.append(f"expected message.timestamp.type={expected}, got {stamped}")
    at_least = {
        "min.compaction.lag.ms": spec.compaction_lag_ms,
        "delete.retention.ms": 0 if spec.role == "in" else spec.tombstone_ms,
    }
    for name, least in at_least.items():
        got = config.get(name)
        if got is not None and int(got) < least:
            problems.append(f"expected {name}={least} or more, got {got}")
    return problems


async def wait_for_broker(
    settings: Settings, on_wait: Callable[[str], None] = lambda reason: None
) -> None:
    """Return when a broker answers, trying again with growing pauses.

    Raises AccessRefused at once, and BrokerAbsent after ``broker_wait_s``, if that is set.
    ``on_wait`` is told why it waits.
    """

    def before_sleep(state: RetryCallState) -> None:
        reason = f"no Kafka broker at {settings.broker}"
        log.warning("%s: trying again in %.1f s", reason, state.upcoming_sleep)
        on_wait(reason)

    limit_s = settings.broker_wait_s
    try:
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type((KafkaError, OSError)),
            wait=wait_exponential_jitter(initial=0.25, max=10),
            stop=stop_after_delay(limit_s) if limit_s else stop_never,
            before_sleep=before_sleep,
            reraise=True,
        ):
            with attempt:
                await _answered(settings)
    except (KafkaError, OSError) as error:
        raise BrokerAbsent(
            f"no Kafka broker at {settings.broker} within {limit_s:g} s (setting broker_wait_s)"
        ) from error


async def _answered(settings: Settings) -> None:
    try:
        async with admin_client(settings) as admin:
            await admin.list_topics()
    except KafkaError:
        if refused := await refusal(settings):
            raise refused from None
        raise
