from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from builders import NOW_MS, message
from fakes import Killed, Outbox
from preference_stage import dead, new_table

from stream.agents.failures import Failures
from stream.agents.guard import Guard
from stream.agents.neighbours import PAIRS_LEDGER_KEY, Neighbours
from stream.agents.reports import BatchReport
from stream.core.item_rows import from_row, ledger_to_row, to_row
from stream.core.item_state import CountingRules, ItemState, PairsLedger
from stream.core.user_rows import NewerRow
from stream.dead_letters import DeadLetters, StormGauge
from stream.delivery import Output, SourceMessage
from stream.engine.commits import Committer, PartitionCommit
from stream.messages import (
    ItemNeighbours,
    ItemPairs,
    ItemTouch,
    read_item_neighbours,
    to_message,
)
from stream.settings import load_settings
from stream.tiers.neighbours import _counting
from stream.topics import ITEM_STATE

DAY_MS = 86_400_000
RULES = CountingRules(180 * DAY_MS, 2 * DAY_MS, neighbours_kept=8)


class NeighboursStage:
    """The stage behind its guard, holding partitions 0 and 1."""

    def __init__(self, folder: Path, rules: CountingRules = RULES) -> None:
        self.rules = rules
        self.table = new_table(folder, ITEM_STATE.name)
        self.outbox = Outbox()
        self.reports: list[BatchReport] = []
        self.build()

    def build(self) -> None:
        self.committer = Committer(self.table, self.outbox, ITEM_STATE.name)
        failures = Failures(DeadLetters(self.outbox, "0", lambda *_: None), "neighbours")
        report = self.reports.append
        stage = Neighbours(self.table, self.committer, self.rules, failures, report)
        self.guard = Guard(stage.process, stage.reject, failures, StormGauge())

    async def start(self) -> None:
        await self.committer.hold({0, 1})

    async def __call__(self, *batch: SourceMessage) -> list[Output]:
        before = len(self.outbox.sent)
        await self.guard(batch)
        return self.outbox.sent[before:]

    def state(self, item_id: str, partition: int = 0) -> ItemState | None:
        row = self.table.rows(partition, [item_id.encode()])[0]
        return None if row is None else from_row(row)


@pytest.fixture
async def stage(tmp_path: Path) -> NeighboursStage:
    stage = NeighboursStage(tmp_path)
    await stage.start()
    return stage


def touch(item_id: str, *others: str, **fields: Any) -> ItemTouch:
    base = {"weight": 1.0, "first": True, "event_time_ms": NOW_MS, "region": None}
    return ItemTouch(item_id=item_id, others=list(others), **{**base, **fields})


def pairs(offset: int, sequence: int, *touches: ItemTouch, **fields: int) -> SourceMessage:
    """A message of item-pairs; ``source`` is the user partition it is from."""
    source = fields.get("source", 0)
    value = ItemPairs(source_partition=source, sequence=sequence, touches=list(touches))
    partition = fields.get("partition", 0)
    return SourceMessage("item-pairs", partition, offset, NOW_MS, None, to_message(value))


def published(outputs: list[Output]) -> dict[str, ItemNeighbours]:
    found = [read_item_neighbours(o.value or b"") for o in outputs if o.topic == "item-neighbours"]
    assert len({one.item_id for one in found}) == len(found)
    return {one.item_id: one for one in found}


def counts(stage: NeighboursStage, item_id: str) -> tuple[float, dict[str, float], float]:
    state = stage.state(item_id)
    assert state is not None
    return state.n_users, dict(state.neighbours), state.popularity


async def test_touches_are_counted_and_published_for_the_items_they_changed(
    stage: NeighboursStage,
) -> None:
    sent = await stage(
        pairs(0, 1, touch("boots", "hat"), touch("hat", "boots", first=False, weight=0.0)),
        pairs(1, 1, touch("boots", "tea"), source=1),
    )
    assert counts(stage, "boots") == (2.0, {"hat": 1.0, "tea": 1.0}, 2.0)
    assert counts(stage, "hat") == (0.0, {"boots": 1.0}, 0.0)
    found = published(sent)
    assert found.keys() == {"boots", "hat"}
    assert dict(found["boots"].neighbours) == {"hat": 1.0, "tea": 1.0}
    assert found["boots"].n_users == 2.0
    assert [o.key for o in sent if o.topic == "item-neighbours"] == [b"boots", b"hat"]
    assert published(await stage(pairs(2, 2, touch("tea")))).keys() == {"tea"}


async def test_a_message_published_again_after_a_crash_is_not_counted_again(
    stage: NeighboursStage,
) -> None:
    await stage(pairs(0, 1, touch("boots", "hat")), pairs(1, 2, touch("boots", "tea")))
    sent = await stage(pairs(2, 2, touch("boots", "tea")), pairs(3, 3, touch("boots")))
    assert counts(stage, "boots") == (3.0, {"hat": 1.0, "tea": 1.0}, 3.0)
    assert published(sent).keys() == {"boots"}
    assert stage.reports[-1].events["item-pairs", "repeat"] == 1


async def test_a_repeat_within_one_batch_is_not_counted_again(stage: NeighboursStage) -> None:
    await stage(pairs(0, 1, touch("boots")), pairs(1, 1, touch("boots")))
    assert counts(stage, "boots")[0] == 1.0


async def test_a_message_read_again_changes_and_publishes_nothing(stage: NeighboursStage) -> None:
    batch = [pairs(0, 1, touch("boots", "hat")), message("item-pairs", b"\xc1", 1)]
    await stage(*batch)
    before = stage.state("boots")
    sent = await stage(*batch)
    assert stage.state("boots") == before
    assert {o.topic for o in sent} == {"item-state"}


async def test_every_user_partition_counts_its_own_sequences(stage: NeighboursStage) -> None:
    await stage(pairs(0, 9, touch("boots"), source=0), pairs(1, 1, touch("boots"), source=1))
    assert counts(stage, "boots")[0] == 2.0


async def test_partitions_of_items_do_not_meet(stage: NeighboursStage) -> None:
    await stage(pairs(0, 1, touch("boots"), partition=0), pairs(0, 1, touch("tea"), partition=1))
    assert stage.state("tea", partition=0) is None
    assert stage.state("tea", partition=1) is not None
    # The same batch of users means something to both: one sequence, once in each.
    assert stage.state("boots", partition=0) is not None


@pytest.mark.parametrize("raw", [None, b"", b"\xc1", b"{}"])
async def test_poison_costs_one_dead_letter(stage: NeighboursStage, raw: bytes | None) -> None:
    poison = SourceMessage("item-pairs", 0, 1, NOW_MS, b"key", raw)
    sent = await stage(pairs(0, 1, touch("boots")), poison, pairs(2, 2, touch("tea")))
    assert [letter.value for letter in dead(sent)] == [raw]
    assert published(sent).keys() == {"boots", "tea"}


async def test_a_row_that_cannot_be_read_costs_the_messages_of_that_item_alone(
    stage: NeighboursStage,
) -> None:
    stage.table.write(0, {b"boots": b"\x00" * 8 + b"\x01 damaged"})
    sent = await stage(pairs(0, 1, touch("tea")), pairs(1, 2, touch("boots")), pairs(2, 3))
    assert len(dead(sent)) == 1
    assert counts(stage, "tea")[0] == 1.0


@pytest.mark.parametrize("cut", range(16))
async def test_counts_are_exact_wherever_the_process_ends(tmp_path: Path, cut: int) -> None:
    batches = [
        [pairs(0, 1, touch("boots", "hat")), pairs(1, 2, touch("tea"))],
        [pairs(2, 2, touch("tea")), pairs(3, 3, touch("boots", "tea"), touch("hat"))],
    ]
    stage = NeighboursStage(tmp_path)
    await stage.start()
    stage.outbox.dies_after = cut
    try:
        for batch in batches:
            await stage(*batch)
    except Killed:
        stage.outbox.dies_after = None
        stage.build()
        await stage.start()
        await stage(*batches[0], batches[1][0])  # other batch boundaries
        await stage(batches[1][1])
    assert counts(stage, "boots") == (2.0, {"hat": 1.0, "tea": 1.0}, 2.0)
    assert counts(stage, "tea")[0] == 1.0
    latest = {
        o.key: read_item_neighbours(o.value or b"") for o in stage.outbox.of("item-neighbours")
    }
    assert dict(latest[b"boots"].neighbours) == {"hat": 1.0, "tea": 1.0}


@pytest.mark.parametrize(
    ("key", "row"),
    [(b"boots", to_row(ItemState("boots"))), (PAIRS_LEDGER_KEY, ledger_to_row(PairsLedger({})))],
    ids=["item", "ledger"],
)
async def test_a_row_of_a_newer_version_stops_the_worker_and_stays(
    stage: NeighboursStage, key: bytes, row: bytes
) -> None:
    newer = b"\x07" + row[1:]
    await stage.committer.commit([PartitionCommit(0, {key: newer})])
    n_sent = len(stage.outbox.sent)
    with pytest.raises(NewerRow, match="version 7"):
        await stage(pairs(0, 1, touch("boots", "hat")))
    assert stage.table.rows(0, [key]) == [newer]
    assert len(stage.outbox.sent) == n_sent


async def test_items_of_which_little_is_new_are_counted_and_not_told(tmp_path: Path) -> None:
    rules = dataclasses.replace(RULES, told_share=0.05, told_after_ms=60_000)
    stage = NeighboursStage(tmp_path, rules)
    await stage.start()
    many = [touch("boots", "hat")] * 30
    assert published(await stage(pairs(0, 1, *many))).keys() == {"boots"}
    assert published(await stage(pairs(1, 2, touch("boots", "hat")))) == {}
    assert counts(stage, "boots") == (31.0, {"hat": 31.0}, 31.0)
    assert stage.reports[-1].outputs["item-neighbours"] == 0
    # What was not told is told with the rest.
    found = published(await stage(pairs(2, 3, touch("boots", "hat"))))
    assert found["boots"].n_users == 32.0


def test_what_is_news_is_as_the_settings_say() -> None:
    rules = _counting(load_settings(neighbours_told_share=0.2, neighbours_told_after_s=7))
    assert (rules.told_share, rules.told_after_ms) == (0.2, 7000)
