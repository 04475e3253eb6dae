"""Rows of users: their versions, and that nothing of an older one is lost."""

from __future__ import annotations

import numpy as np
import pytest
from builders import NOW_MS

from models.activity import Activity
from models.packed_vector import to_four_bits
from stream.core.profiles import long_interest, profile_of
from stream.core.user_rows import (
    MOST_BEHIND,
    BadRow,
    NewerRow,
    from_row,
    has_pending,
    read_row,
    row_of,
    to_body,
    to_row,
)
from stream.core.user_state import Act, Faded, Interest, Rules, Stated, TextAct, UserState
from stream.messages import Trigger
from stream.settings import load_settings

RULES = Rules.of(load_settings())
#: As version 1 wrote it, with four dimensions: acts on boots and a hat in the history, a cup that
#: was bought and a lamp that was disliked before those, a search, stated interests.
VERSION_1 = bytes.fromhex(
    "01dc0010950307ff040493c410f7ffff3ed5a3b03f1c85eb3ff2ffbf3fcb401133329460823ccf00000199c8"
    "2cbc7c93c410c0f2ff3eb8a0b03ff680eb3f9becbf3fcb40113253e3fb0a93cf00000199c82cbc7c9295cf00"
    "000199c82cb448a5626f6f7473a5636c69636bcb3fe0000000000000c395cf00000199c82cb830a3686174a8"
    "7075726368617365cb3ff8000000000000c39194cf00000199c82cbc7ca87761726d20686174c4080000cd38"
    "663a0000cb3fe999999999999a82a3637570cf00000199c82cac78a3686174cf00000199c82cb83081a46c61"
    "6d70cf00000199c82cb060c4a878ac2cc8990100007cbc2cc89901000078ac2cc89901000030b82cc8990100"
    "0005000000000000000200000000000000020000000000000000000000000000000100000000000000000000"
    "0000002440591b1ee0fcff13405224aea2ffff13400000000000000000010000000000000000000000000000"
    "0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
    "0000000000c418aef9743acab69de68244bcb2cb9bd553c937bed0f69c59e696cf00000199c82cc000c3c0c0"
    "a3746561c408000000000000003ca56e6f727468cf00000199c82cb44885a5746f706963a57573657273a970"
    "6172746974696f6e00a66f666673657404a86576656e745f6964a775736572733a34ad6576656e745f74696d"
    "655f6d73cf00000199c82cc000cf00000199c82cbfffa468696768ff"
)
#: As version 2 wrote it, with four dimensions.
VERSION_2 = bytes.fromhex(
    "02019ecf00000199c82cbffd9505060708ff9e610307070401010000cb4023000000000000cb3ff800000000"
    "0000cb4004000000000000cb3fe0000000000000c40109c40c31323334353631323334353696c40a2b85ab7f"
    "6e8a2db3ffffc403000100c40301020493a87075726368617365a5636c69636ba476696577c40c0000c03f00"
    "00003f0000803e9306040093c40b0000003f0000c03f010003c404017f800004919503a972656420626f6f74"
    "73c4043331b88ccb3fe8000000000000c39293ff18c40661626364656693cd02a710c402616296cf00000199"
    "c82cc000c3a56e6f727468a2656ea3746561c400a5736f7574680195020346a3723730cf00000199c82cc000"
    "fe03"
)
#: As version 3 writes it: an act of each kind behind an empty base.
VERSION_3 = bytes.fromhex(
    "03009ccf00000199c82cc008c4069500c09090c095ffffffffff90c4009994cf00000199c82cc000a2693000"
    "ce3f00000094cf00000199c82cc001a2693103ce3f00000094cf00000199c82cc002a2693204ce3f00000094"
    "cf00000199c82cc003a2693307ce3f00000094cf00000199c82cc004a2693408ce3f00000094cf00000199c8"
    "2cc005a269350bce3f00000094cf00000199c82cc006a269360cce3f00000094cf00000199c82cc007a26937"
    "0fce3f00000094cf00000199c82cc008a2693810ce3f000000c0c000c00000"
)
HAT = to_four_bits(np.array([0, 0.6, 0.8, 0], np.float32))
TRIGGER = Trigger(topic="reviews", partition=3, offset=70, event_id="r70", event_time_ms=NOW_MS)


def test_a_row_of_version_1_says_what_it_said():
    state = from_row(VERSION_1)
    assert state.offsets == (3, 7, -1, 4, 4)
    assert [(a.item_id, a.kind, a.folded) for a in state.acts] == [
        ("boots", "click", True),
        ("hat", "purchase", True),
    ]
    profile = profile_of(state, {}, NOW_MS, RULES)
    assert profile.exclude == {"hat"}
    assert profile.exclude_hashed is not None
    assert "cup" in profile.exclude_hashed
    assert "lamp" in profile.exclude_hashed
    assert "boots" not in profile.exclude_hashed
    assert [(text.kind, text.text) for text in profile.texts] == [
        ("interest", "tea"),
        ("search", "warm hat"),
    ]
    np.testing.assert_allclose(profile.texts[1].vector, [0, 0.6, 0.8, 0], atol=0.1)
    assert state.activity.n_purchases == 2
    assert (state.band, state.seen_region, state.recommended_ms) == ("high", "north", NOW_MS - 1)
    assert state.pending is not None
    assert state.pending.event_id == "users:4"
    assert has_pending(VERSION_1)


def test_the_interest_of_version_1_is_kept_but_for_its_rounding():
    interest, weight = long_interest(from_row(VERSION_1), {}, RULES)
    np.testing.assert_allclose(interest, [0.5, 1.38, 1.84, 1.5], atol=0.02)
    assert weight == pytest.approx(4.3, rel=1e-4)


def test_event_ids_that_version_1_remembers_are_recognised():
    from stream.core.fold import _event_hash

    assert _event_hash("clickstream", "e3") in from_row(VERSION_1).event_ids


def test_a_row_of_version_2_says_what_it_said():
    assert has_pending(VERSION_2)
    assert from_row(VERSION_2) == UserState(
        offsets=(5, 6, 7, 8, -1),
        long=Interest(b"\x01\x7f\x80\x00", b"\x03", 0.5, 1.5, NOW_MS - 7),
        acts=(
            Act(NOW_MS - 9, "hat", "purchase", 1.5, folded=True),
            Act(NOW_MS - 5, "boots", "click", 0.5),
            Act(NOW_MS - 5, "hat", "view", 0.25),
        ),
        texts=(TextAct(NOW_MS - 6, "red boots", HAT, 0.75, folded=True),),
        faded=(Faded(-1, 24, b"abcdef"), Faded(679, 16, b"ab")),
        activity=Activity(
            NOW_MS - 99, NOW_MS - 5, NOW_MS - 9, NOW_MS - 9, 4, 1, 1, 0, 0, 9.5, 1.5, 2.5, 0.5, 9
        ),
        event_ids=b"123456" * 2,
        stated=Stated(NOW_MS, True, "north", "en", "tea"),
        seen_region="south",
        seen_region_ms=NOW_MS - 3,
        pending=TRIGGER,
        recommended_ms=NOW_MS - 1,
        band="high",
    )


def test_kinds_of_acts_keep_their_numbers():
    assert [(act.kind, act.folded) for act in from_row(VERSION_3).acts] == [
        ("impression", False),
        ("view", True),
        ("click", False),
        ("add_to_cart", True),
        ("remove_from_cart", False),
        ("favorite", True),
        ("purchase", False),
        ("dislike", True),
        ("review", False),
    ]


@pytest.mark.parametrize("old", [VERSION_1, VERSION_2], ids=["version 1", "version 2"])
def test_a_row_of_an_older_version_is_written_as_one_of_version_3(old):
    state = from_row(old)
    row = to_row(state)
    assert row[0] == 3
    assert from_row(row) == state


def acts(n: int) -> tuple[Act, ...]:
    return tuple(Act(NOW_MS + k, f"i{k}", "view", 0.5) for k in range(n))


def test_what_changes_seldom_is_not_written_anew():
    first = to_body(UserState(acts=acts(20))).written
    later = UserState(acts=acts(20 + MOST_BEHIND), offsets=(9,) * 5, event_ids=b"123456")
    written = to_body(later, first).written
    assert written.base is first.base
    assert len(written.behind) == MOST_BEHIND
    for changed in (
        UserState(acts=acts(21 + MOST_BEHIND)),
        UserState(acts=acts(21)[1:]),
        UserState(acts=acts(20), seen_region="north", stated=Stated(locale="en")),
        UserState(acts=(*acts(20), Act(NOW_MS + 99, "i", "a kind of tomorrow", 0.5))),
    ):
        body = to_body(changed, first)
        assert body.written.base != first.base
        assert body.written.behind == ()
        assert from_row(row_of(body, changed)) == changed


def test_what_is_written_of_a_row_read_goes_on():
    first = UserState(acts=acts(4))
    row = row_of(to_body(first, to_body(UserState(acts=acts(3))).written), first)
    state, written = read_row(row)
    assert written is not None
    assert (state, len(written.behind)) == (first, 1)
    body = to_body(UserState(acts=acts(5)), written)
    assert body.written.base == written.base
    assert from_row(row_of(body, UserState(acts=acts(5)))) == UserState(acts=acts(5))


@pytest.mark.parametrize("version", [0, 4, 9, 255])
def test_a_row_of_an_unknown_version_is_refused_by_name(version):
    row = bytes((version,)) + to_row(UserState())[1:]
    for read in (from_row, has_pending):
        with pytest.raises(NewerRow, match=rf"version 3 or earlier, got version {version}\b"):
            read(row)


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x02", id="a version alone"),
        pytest.param(to_row(UserState())[:-1], id="cut short"),
        pytest.param(VERSION_1[:-4], id="version 1, cut short"),
        pytest.param(VERSION_2[:-4], id="version 2, cut short"),
        pytest.param(to_row(UserState()) + b"x", id="too long"),
        pytest.param(
            to_row(UserState(acts=(Act(NOW_MS, "i1", "view", 0.5),))).replace(b"view", b"\xff\xff"),
            id="not text",
        ),
    ],
)
def test_a_damaged_row_is_refused(row):
    with pytest.raises(BadRow):
        from_row(row)


def test_a_due_recommendation_shows_without_reading_the_row():
    state = UserState(pending=TRIGGER)
    assert has_pending(to_row(state))
    assert from_row(to_row(state)).pending == TRIGGER
    assert not has_pending(to_row(UserState()))


def test_times_may_lie_before_and_after_the_latest_event():
    for recommended_ms in (0, 1, NOW_MS - 1, NOW_MS, NOW_MS + 1, 2 * NOW_MS):
        state = UserState(
            acts=(Act(NOW_MS, "i1", "view", 0.5),),
            recommended_ms=recommended_ms,
            stated=Stated(updated_ms=2 * NOW_MS),
        )
        assert from_row(to_row(state)) == state


def test_many_acts_on_many_items_are_told_apart():
    acts = tuple(Act(NOW_MS + n, f"item {n % 300}", "view", 0.5) for n in range(500))
    state = UserState(acts=acts)
    assert from_row(to_row(state)) == state
