"""Full names of topics, with a second state beside the first."""

from __future__ import annotations

import pytest

from stream.groups import group_of, group_of_acts
from stream.settings import Settings
from stream.topic_names import FullNames, full_name, short_name
from stream.topics import TOPICS


@pytest.mark.parametrize("spec", TOPICS, ids=lambda spec: spec.name)
@pytest.mark.parametrize(("ours", "state"), [("", ""), ("shop-", ""), ("", "v2-"), ("s-", "v2-")])
def test_a_name_comes_back_from_its_full_one(spec, ours, state):
    settings = Settings(topic_prefix=ours, state_prefix=state)
    full = full_name(settings, spec.name)
    assert full == f"{ours}{'' if spec.role == 'in' else state}{spec.name}"
    assert FullNames(settings)[spec.name] == full
    assert short_name(settings, full) == spec.name


def test_two_states_share_the_sources_and_the_edge_and_nothing_else():
    one, two = Settings(topic_prefix="s-"), Settings(topic_prefix="s-", state_prefix="v2-")
    shared = {
        spec.name for spec in TOPICS if full_name(one, spec.name) == full_name(two, spec.name)
    }
    assert shared == {spec.name for spec in TOPICS if spec.role == "in"}
    assert group_of(one, "encode") != group_of(two, "encode")
    assert group_of_acts(one) == group_of_acts(two)
