"""State of which a part is gone is refused by name; state that is whole is not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from faust.types import TP
from preference_stage import new_table

from stream.engine.table import PartitionTable
from stream.engine.wholeness import StateLost, require_whole
from stream.settings import load_settings

CHANGELOG, CLICKS = "user-state", "clickstream"


class Broker:
    """Where the changelog begins, and what is committed of the sources."""

    def __init__(self, begins: dict[int, int | None], committed: dict[int, int | None]) -> None:
        self._begins, self._committed = begins, committed

    async def earliest_offsets(self, *partitions: TP) -> Mapping[TP, int | None]:
        return {tp: self._begins.get(tp.partition) for tp in partitions}

    async def committed_sources(self) -> Mapping[TP, int | None]:
        return {TP(CLICKS, number): offset for number, offset in self._committed.items()}


@pytest.fixture
def table(tmp_path: Path) -> PartitionTable:
    return new_table(tmp_path)


async def check(
    table: PartitionTable,
    begins: dict[int, int | None],
    committed: dict[int, int | None],
    through: dict[int, int],
    **settings: Any,
) -> None:
    await require_whole(
        table,
        {0, 1},
        Broker(begins, committed),
        lambda partition, topic: through.get(partition, -1) if topic == CLICKS else -1,
        load_settings(**settings),
    )


def held(table: PartitionTable, monkeypatch: pytest.MonkeyPatch, offset: int | None) -> None:
    """Let both partitions be assigned while the local store holds the changelog up to there."""
    monkeypatch.setattr(table.data, "persisted_offset", lambda tp: offset, raising=False)
    for partition in (0, 1):
        table.persisted_offset(TP(CHANGELOG, partition))


async def test_a_first_start_is_whole(table):
    await check(table, {0: 0, 1: 0}, {0: None, 1: None}, {})
    await check(table, {0: None, 1: None}, {0: 0, 1: 0}, {})


async def test_a_ledger_that_covers_what_is_committed_is_whole(table):
    # It is written before the commit, so it may cover more.
    await check(table, {0: 0, 1: 0}, {0: 8, 1: 5}, {0: 7, 1: 9})


async def test_a_changelog_without_the_ledger_of_what_is_committed_is_refused(table):
    with pytest.raises(StateLost, match=re.escape("clickstream[1] is committed up to offset 6")):
        await check(table, {0: 0, 1: 0}, {0: 8, 1: 6}, {0: 7})


async def test_a_ledger_older_than_what_is_committed_is_refused(table):
    with pytest.raises(StateLost, match="reflects it only up to 7"):
        await check(table, {0: 0, 1: 0}, {0: 8}, {0: 6})


async def test_a_changelog_cut_off_behind_an_empty_store_is_refused(table, monkeypatch):
    held(table, monkeypatch, None)
    text = "user-state[0] begins at offset 4, and the local store was empty"
    with pytest.raises(StateLost, match=re.escape(text)):
        await check(table, {0: 4, 1: 0}, {0: 8, 1: None}, {0: 7})


@pytest.mark.parametrize(("ends", "is_whole"), [(2, False), (3, True), (900, True)])
async def test_a_store_that_reaches_the_changelog_s_beginning_makes_up_for_it(
    table, monkeypatch, ends, is_whole
):
    held(table, monkeypatch, ends)
    if is_whole:
        await check(table, {0: 4, 1: 4}, {}, {})
    else:
        with pytest.raises(StateLost, match="the local store ends at 2"):
            await check(table, {0: 4, 1: 4}, {}, {})


async def test_other_workers_partitions_are_their_own_affair(table):
    await check(table, {0: 0, 1: 0}, {2: 50}, {})


async def test_the_topic_prefix_does_not_hide_what_is_covered(table):
    class Prefixed(Broker):
        async def committed_sources(self) -> Mapping[TP, int | None]:
            return {TP(f"shop-{CLICKS}", 0): 8}

    covered = {CLICKS: 7}
    settings = load_settings(topic_prefix="shop-")
    await require_whole(
        table, {0}, Prefixed({}, {}), lambda _, topic: covered.get(topic, -1), settings
    )


async def test_lost_state_that_is_accepted_is_logged_and_gone_on_from(table, caplog):
    await check(table, {0: 4, 1: 0}, {0: 8, 1: 6}, {}, accept_lost_state=True)
    assert "clickstream[1] is committed up to offset 6" in caplog.text
    assert "accept_lost_state" in caplog.text


async def test_partitions_taken_away_meanwhile_are_nobodys_loss(table: PartitionTable) -> None:
    await require_whole(
        table, {0}, Broker({}, {0: 9, 1: 9}), lambda number, _: {0: None}[number], load_settings()
    )
