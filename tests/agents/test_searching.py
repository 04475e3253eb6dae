"""Searches are answered once, in the commit that folds them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from builders import user
from fakes import Killed, Outbox, TitleLover
from preference_stage import PreferenceStage, again, new_table, outcomes, results

from models.items import ItemFacts
from stream.messages import output_id


async def test_a_search_is_answered_with_what_fits_it(stage: PreferenceStage) -> None:
    sent = await stage(stage.searched("red boots"))
    (answer,) = results(sent)
    assert answer.search_event_id == "s0"
    assert answer.query == "red boots"
    assert [item.rank for item in answer.items] == list(range(1, len(answer.items) + 1))
    assert {answer.items[0].item_id, answer.items[1].item_id} == {"boots", "laces"}
    assert answer.items[0].source == "both"
    assert answer.generated_ms == stage.now_ms
    assert answer.model.encoder == stage.encoder.encoder_id
    assert [o.key for o in sent if o.topic == "search-results"] == [b"u1"]


async def test_each_search_of_a_batch_has_an_answer_of_its_own(stage: PreferenceStage) -> None:
    sent = await stage(
        stage.searched("red boots"), stage.searched("tea", user_id="u2"), stage.searched("lamp")
    )
    assert {a.search_event_id: a.items[0].item_id for a in results(sent)}["s2"] == "lamp"
    assert sorted(a.search_event_id for a in results(sent)) == ["s0", "s1", "s2"]


async def test_no_more_than_search_k_are_shown(tmp_path: Path) -> None:
    stage = PreferenceStage(new_table(tmp_path), Outbox(), search_k=2)
    stage.stock()
    await stage.start()
    (answer,) = results(await stage(stage.searched("tea")))
    assert len(answer.items) == 2


async def test_a_search_read_again_or_sent_again_has_no_second_answer(
    stage: PreferenceStage,
) -> None:
    asked = stage.searched("red boots")
    assert len(results(await stage(asked))) == 1
    assert results(await stage(asked)) == []
    # The encode tier repeats itself: another offset on the way, the same place of the source.
    assert results(await stage(again(asked, 5))) == []
    assert outcomes(stage) == {"repeat": 1}


@pytest.mark.parametrize("n_arrived", range(6))
async def test_whenever_the_process_ends_all_answers_to_a_search_are_the_same_bytes(
    tmp_path: Path, n_arrived: int
) -> None:
    outbox = Outbox()
    stage = PreferenceStage(new_table(tmp_path), outbox)
    stage.stock()
    await stage.start()
    asked = stage.searched("red boots")
    outbox.dies_after = n_arrived
    with suppress(Killed):
        await stage(asked)
    outbox.dies_after = None
    # The next owner reads what has arrived of the changelog, in another shop at another time.
    stage.restore()
    stage.now_ms += 5000
    stage.catalogue.drop_items(["boots"])
    stage.build()
    await stage.start()
    await stage(asked)
    assert len({o.value for o in outbox.of("search-results")}) == 1


async def test_the_answers_id_is_that_of_the_search(stage: PreferenceStage) -> None:
    await stage(stage.searched("tea"))
    stage.build()
    await stage.start()
    assert stage.committer.was_sent(0, output_id("search-results", "searches", 0, 0))


async def test_items_sold_out_or_removed_are_not_shown(stage: PreferenceStage) -> None:
    stage.catalogue.put_item(ItemFacts("boots", "red leather boots", 2, in_stock=False))
    stage.catalogue.drop_items(["laces"])
    (answer,) = results(await stage(stage.searched("red boots")))
    assert {"boots", "laces"}.isdisjoint(item.item_id for item in answer.items)
    assert answer.items


async def test_an_empty_shop_says_so(bare: PreferenceStage) -> None:
    (answer,) = results(await bare(bare.searched("red boots")))
    assert answer.items == []


async def test_who_declined_profiling_is_answered_and_not_profiled(tmp_path: Path) -> None:
    stage = PreferenceStage(new_table(tmp_path), Outbox(), search_personalisation=1.0)
    stage.stock()
    await stage.start()
    await stage(*(stage.act("tea") for _ in range(5)))
    stranger = results(await stage(stage.searched("red boots", user_id="u2")))[0]
    await stage(stage.stated(user(personalize=False)))
    (answer,) = results(await stage(stage.searched("red boots")))
    assert answer.items[0].item_id == stranger.items[0].item_id
    assert stage.state() is not None
    assert stage.state().texts == ()  # type: ignore[union-attr]


async def test_an_erased_user_is_not_answered_until_they_come_back(stage: PreferenceStage) -> None:
    await stage(stage.stated(None))
    assert results(await stage(stage.searched("red boots"))) == []
    assert outcomes(stage) == {"erased": 1}
    await stage(stage.stated(user()))
    assert len(results(await stage(stage.searched("red boots")))) == 1


async def test_a_search_before_a_tombstone_in_one_batch_is_not_answered(
    stage: PreferenceStage,
) -> None:
    sent = await stage(stage.searched("red boots"), stage.stated(None))
    assert [o.value for o in sent if o.topic == "search-results"] == [None]


async def test_a_tombstone_comes_before_what_is_published_of_who_came_back(
    stage: PreferenceStage,
) -> None:
    sent = await stage(stage.stated(None), stage.stated(user()), stage.searched("tea"))
    values = [o.value for o in sent if o.topic == "search-results"]
    assert values[0] is None
    assert len(values) == 2


async def test_interests_count_when_they_are_to(tmp_path: Path) -> None:
    places = []
    for share in (0.0, 1.0):
        stage = PreferenceStage(
            new_table(tmp_path / str(share)), Outbox(), search_personalisation=share
        )
        stage.stock()
        await stage.start()
        await stage(*(stage.act("tea", "purchase") for _ in range(5)))
        (answer,) = results(await stage(stage.searched("red boots")))
        places.append([item.item_id for item in answer.items].index("tea"))
    assert places[1] < places[0]


async def test_searches_are_not_answered_where_that_is_switched_off(tmp_path: Path) -> None:
    stage = PreferenceStage(new_table(tmp_path), Outbox(), search_results=False)
    stage.stock()
    await stage.start()
    assert results(await stage(stage.searched("red boots"))) == []


async def test_a_very_long_query_is_answered_under_its_beginning(stage: PreferenceStage) -> None:
    (answer,) = results(await stage(stage.searched("red boots " * 9000)))
    assert answer.query == ("red boots " * 9000)[:1000]
    assert len(msgspec.json.encode(answer)) < 10_000


async def test_a_cross_encoder_orders_what_was_found_and_is_named(tmp_path: Path) -> None:
    loved = TitleLover("desk lamp light")
    stage = PreferenceStage(
        new_table(tmp_path), Outbox(), scorer=loved, search_k=1, search_reranker_weight=10
    )
    stage.stock()
    await stage.start()
    (answer,) = results(await stage(stage.searched("red boots")))
    # It was read beyond what is shown.
    assert [item.item_id for item in answer.items] == ["lamp"]
    assert answer.model.ranker == "search-1+title-lover"


async def test_who_searches_has_an_answer_where_the_cross_encoder_fails(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = TitleLover(is_broken=True)
    stage = PreferenceStage(new_table(tmp_path), Outbox(), scorer=broken)
    stage.stock()
    await stage.start()
    answers = results(await stage(stage.searched("red boots"), stage.searched("tea")))
    assert [len(answer.items) for answer in answers] == [8, 8]
    assert {answer.model.ranker for answer in answers} == {"search-1"}
    assert "out of order" in caplog.text
    broken.is_broken = False
    (answer,) = results(await stage(stage.searched("red boots")))
    assert answer.model.ranker == "search-1+title-lover"
