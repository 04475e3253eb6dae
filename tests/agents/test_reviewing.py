"""What a model says of reviews: into the state where there are no stars, and out, once."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from builders import user
from fakes import Killed, Outbox
from preference_stage import PreferenceStage, again, new_table, outcomes

from stream.delivery import Output
from stream.messages import ReviewInsight, output_id


def insights(outputs: list[Output]) -> list[ReviewInsight]:
    return [
        msgspec.json.decode(o.value or b"", type=ReviewInsight)
        for o in outputs
        if o.topic == "review-insights"
    ]


async def test_a_review_is_told_of_under_its_item(stage: PreferenceStage) -> None:
    sent = await stage(stage.reviewed("boots", "fell apart", content=0.1))
    assert insights(sent) == [
        ReviewInsight(
            review_event_id="r0",
            item_id="boots",
            user_id="u1",
            sentiment=-0.8,
            satisfaction=0.1,
            model="sentiment-test",
        )
    ]
    (output,) = [o for o in sent if o.topic == "review-insights"]
    # By its key: whoever reads of an item reads of it in one place.
    assert (output.key, output.partition) == (b"boots", None)


async def test_stars_say_how_satisfied_and_the_text_how_it_sounds(stage: PreferenceStage) -> None:
    (insight,) = insights(await stage(stage.reviewed("boots", "fine", rating=2.0, content=0.75)))
    assert (insight.satisfaction, insight.sentiment) == (0.25, 0.5)


async def test_without_a_model_nothing_is_told(stage: PreferenceStage) -> None:
    assert insights(await stage(stage.reviewed("boots", "fine", rating=5.0))) == []


@pytest.mark.parametrize(
    ("rating", "content", "weight"),
    [
        pytest.param(None, 0.9, 0.8, id="praise"),
        pytest.param(None, 0.1, -0.8, id="blame"),
        pytest.param(5.0, 0.1, 1.0, id="the-stars-count-where-there-are-any"),
        pytest.param(None, None, 0.25, id="neither-stars-nor-a-model"),
    ],
)
async def test_what_the_text_says_weighs_where_there_are_no_stars(
    stage: PreferenceStage, rating: float | None, content: float | None, weight: float
) -> None:
    await stage(stage.reviewed("boots", "so", rating=rating, content=content))
    state = stage.state()
    assert state is not None
    assert state.acts[0].weight == pytest.approx(weight)


async def test_a_bad_review_does_not_make_an_item_popular(stage: PreferenceStage) -> None:
    sent = await stage(stage.reviewed("boots", "fell apart", content=0.1))
    assert [o for o in sent if o.topic == "item-pairs"] == []
    sent = await stage(stage.reviewed("boots", "splendid", content=0.9))
    assert [o for o in sent if o.topic == "item-pairs"] != []


async def test_a_review_read_again_or_sent_again_is_told_of_once(stage: PreferenceStage) -> None:
    written = stage.reviewed("boots", "fine", content=0.9)
    assert len(insights(await stage(written))) == 1
    assert insights(await stage(written)) == []
    assert insights(await stage(again(written, 5))) == []
    assert outcomes(stage) == {"repeat": 1}


@pytest.mark.parametrize("n_arrived", range(6))
async def test_whenever_the_process_ends_all_tellings_are_the_same_bytes(
    tmp_path: Path, n_arrived: int
) -> None:
    outbox = Outbox()
    stage = PreferenceStage(new_table(tmp_path), outbox)
    stage.stock()
    await stage.start()
    written = stage.reviewed("boots", "fine", content=0.9)
    outbox.dies_after = n_arrived
    with suppress(Killed):
        await stage(written)
    outbox.dies_after = None
    stage.restore()
    stage.build()
    await stage.start()
    # The encode tier read it again too, in a batch of others, and so a little differently.
    nearly = stage.embedded("review", stage.event_of(written), "fine", 0, content=0.9001)
    await stage(nearly)
    assert len({o.value for o in outbox.of("review-insights")}) == 1


async def test_its_id_is_that_of_the_review(stage: PreferenceStage) -> None:
    await stage(stage.reviewed("boots", "fine", content=0.9))
    stage.build()
    await stage.start()
    assert stage.committer.was_sent(0, output_id("review-insights", "reviews", 0, 0))


async def test_who_declined_profiling_is_not_told_of(stage: PreferenceStage) -> None:
    await stage(stage.stated(user(personalize=False)))
    assert insights(await stage(stage.reviewed("boots", "fine", content=0.9))) == []
    assert outcomes(stage) == {"not_personalized": 1}


async def test_who_declines_in_the_same_batch_is_not_told_of(stage: PreferenceStage) -> None:
    written = stage.reviewed("boots", "fine", content=0.9)
    assert insights(await stage(written, stage.stated(user(personalize=False)))) == []


async def test_an_erased_user_is_not_told_of_until_they_come_back(stage: PreferenceStage) -> None:
    written = stage.reviewed("boots", "fine", content=0.9)
    assert insights(await stage(written, stage.stated(None))) == []
    assert insights(await stage(stage.reviewed("boots", "fine", content=0.9))) == []
    await stage(stage.stated(user()))
    assert len(insights(await stage(stage.reviewed("boots", "fine", content=0.9)))) == 1
