"""What shoppers do with lists is counted once per batch, and only where they may be profiled."""

from __future__ import annotations

from builders import user
from preference_stage import PreferenceStage, again


async def test_acts_are_counted_by_type_and_by_whether_they_name_their_list(
    stage: PreferenceStage,
) -> None:
    await stage(
        stage.act("boots", "impression", recommendation_id="list-1", position=0),
        stage.act("shoes", "impression", recommendation_id="list-1", position=1),
        stage.act("shoes", "click", recommendation_id="list-1"),
        stage.act("tea", "click"),
        stage.act("gone", "purchase"),
        stage.searched("tea"),
    )
    assert stage.reports[-1].acts == {
        ("impression", True): 2,
        ("click", True): 1,
        ("click", False): 1,
        ("purchase", False): 1,
    }


async def test_an_act_that_comes_again_is_not_counted_again(stage: PreferenceStage) -> None:
    clicked = stage.act("boots", recommendation_id="list-1")
    await stage(clicked)
    await stage(clicked, again(clicked, 7))
    assert [dict(report.acts) for report in stage.reports] == [{("click", True): 1}, {}]


async def test_nobody_who_declined_or_is_erased_is_counted(stage: PreferenceStage) -> None:
    await stage(stage.stated(user(personalize=False)), stage.act("boots"))
    await stage(stage.stated(None), stage.act("boots"))
    assert [dict(report.acts) for report in stage.reports] == [{}, {}]


async def test_what_was_listed_and_what_searches_were_answered_by_is_told(
    stage: PreferenceStage,
) -> None:
    await stage(stage.act("boots"))
    assert len(stage.reports[-1].listed) == 5
    await stage(stage.searched("tea"), stage.searched("unheard of"))
    assert stage.reports[-1].answers == {"both": 1, "meaning": 1}


async def test_a_churn_risk_is_counted_with_the_band_before(stage: PreferenceStage) -> None:
    await stage(stage.act("boots"))
    ((_, previous, cause),) = stage.reports[-1].bands
    assert (previous, cause) == ("none", "event")
