"""Turns, statistics and report of ``prefstream bench``, and what it measures with."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import msgspec
import numpy as np
import pytest
from rich.console import Console

from stream.bench.broker import of_side
from stream.bench.latency import Reader, _mixed
from stream.bench.load import Load
from stream.bench.machine import Setup
from stream.bench.processes import cpu_s, standing_still
from stream.bench.report import Figure, number, print_figure, print_setup, to_json, write_json
from stream.bench.rounds import BenchFailed, Sample, Values, turns
from stream.bench.sizes import FULL, QUICK, Latency
from stream.bench.vectors import around_centres, clusters, mixed
from stream.cli import run
from stream.core.events import Search, parse_interaction, parse_search
from stream.core.kept import is_native
from stream.demo.shoppers import Act
from stream.messages import read_item_neighbours
from stream.settings import load_settings

FIGURE = Figure("ingest", {"eps": 12.5}, ("side", "speed"), [("ours", "12.5")], "Said how.")
SETUP = Setup({"cores": 2, "cpu": "x", "memory_gib": 1, "gpu": "none", "system": "s"}, {}, "c")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


# --- turns and statistics ------------------------------------------------------------------------


def test_sides_take_turns_in_every_round() -> None:
    taken = list(turns(("a", "b"), 3))
    assert taken == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2), ("b", 2)]


def test_who_watches_is_told_before_each_turn_and_at_the_end() -> None:
    told: list[tuple[str, int, int]] = []
    for side, _ in turns(("a", "b"), 1, lambda *turn: told.append(turn)):
        assert told[-1][0] == side
    assert told == [("a", 0, 2), ("b", 1, 2), ("", 2, 2)]


def test_one_odd_round_does_not_move_the_median_but_shows_in_the_spread() -> None:
    sample = Sample((10.0, 11.0, 40.0))
    assert sample.median == 11
    assert sample.spread == pytest.approx(30 / 11)


def test_a_ratio_is_taken_within_each_round() -> None:
    # The machine was twice as slow in the second round: for both sides.
    ours, other = Sample((100.0, 50.0, 90.0)), Sample((10.0, 5.0, 10.0))
    assert ours.over(other).values == (10.0, 10.0, 9.0)


def test_sides_with_different_numbers_of_rounds_have_no_ratio() -> None:
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        Sample((1.0, 2.0)).over(Sample((1.0,)))


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_what_is_no_speed_is_refused(value: float) -> None:
    with pytest.raises(BenchFailed, match="ours"):
        Values().add("ours", value)


# --- report --------------------------------------------------------------------------------------


def test_the_json_holds_the_values_beside_machine_versions_and_command(tmp_path: Path) -> None:
    write_json(tmp_path / "f.json", [FIGURE], SETUP)
    found = json.loads((tmp_path / "f.json").read_text())
    assert found == to_json([FIGURE], SETUP)
    assert found["ingest"] == {"eps": 12.5}
    assert set(found) == {"ingest", "machine", "versions", "command"}


def test_people_are_shown_the_table_the_note_and_what_it_was_measured_on() -> None:
    console = Console(file=StringIO(), width=120)
    print_figure(console, FIGURE)
    print_setup(console, Setup(SETUP.machine, {"numpy": "[bold]2"}, "prefstream bench ingest"))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    for words in ("ours", "12.5", "Said how.", "2 cores of x", "numpy [bold]2", "bench ingest"):
        assert words in shown


@pytest.mark.parametrize(
    ("value", "text"),
    [(12345.6, "12,346"), (123.4, "123"), (12.34, "12.3"), (1.234, "1.23"), (0.01234, "0.0123")],
)
def test_numbers_keep_three_digits_that_count(value: float, text: str) -> None:
    assert number(value) == text


def test_the_setup_is_this_machine_s_and_the_command_can_be_typed_again() -> None:
    setup = Setup.here(["bench", "all", "--json", "my file"], "4.x")
    assert setup.command == "prefstream bench all --json 'my file'"
    assert setup.versions["numpy"] == np.__version__
    assert setup.versions["kafka"] == "4.x"
    assert setup.versions["fold"] == ("native" if is_native() else "Python")
    assert setup.machine["cores"] >= 1
    assert setup.machine["memory_gib"] > 0


def test_every_figure_has_both_sizes() -> None:
    assert list(FULL) == list(QUICK)
    assert [type(size) for size in FULL.values()] == [type(size) for size in QUICK.values()]


# --- command -------------------------------------------------------------------------------------


@pytest.mark.parametrize("figure", ["ingest", "catch-up", "mix", "latency", "workers", "all"])
def test_without_a_broker_one_line_says_that_an_apache_kafka_is_needed(
    figure: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["bench", figure]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "Apache Kafka" in said
    assert "--broker" in said


def test_a_folder_that_is_not_there_is_told_before_anything_is_measured(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["bench", "state", "--json", "/no/such/folder/f.json"]) == 2
    assert "/no/such/folder" in capsys.readouterr().err


# --- what is measured with -----------------------------------------------------------------------


def test_every_side_has_topics_of_its_own_under_the_run_s_prefix() -> None:
    settings = load_settings(topic_prefix="bench-1-")
    assert of_side(settings, "ours").topic_prefix == "bench-1-ours-"


def test_acts_are_well_formed_and_no_event_id_comes_twice() -> None:
    load = Load(50, 40)
    acts = [*load.one_act_each(), *load.acts(300), *load.acts(300)]
    events = [parse_interaction(act.value, act.key) for act in acts]
    assert len({event.event_id for event in events}) == 650
    assert {event.user_id for event in events[:50]} == {f"u{number}" for number in range(50)}


def test_a_later_backlog_lies_behind_an_earlier_one() -> None:
    load = Load(50, 40)
    first, second = (
        [parse_interaction(act.value, act.key).event_time_ms for act in load.acts(300)]
        for _ in range(2)
    )
    assert first == sorted(first)
    assert first[0] < first[-1] <= second[0] <= second[-1]


def test_a_mix_is_of_acts_searches_and_reviews_and_most_queries_come_again() -> None:
    messages = Load(50, 40).mix(4_000)
    shares = {topic: n / 4_000 for topic, n in Counter(each.topic for each in messages).items()}
    assert shares == pytest.approx(
        {"clickstream": 0.9, "searches": 0.08, "reviews": 0.02}, abs=0.02
    )
    searches = [parse_search(each.value, each.key) for each in messages if each.topic == "searches"]
    assert 0.1 < len({search.query for search in searches}) / len(searches) < 0.3


def test_of_the_searches_no_more_are_sent_than_asked_for_and_all_else_is() -> None:
    acts = [
        Act(
            "searches" if n % 2 else "clickstream",
            Search(event_id=f"e{n}", user_id="u", query="q", event_time_ms=1),
        )
        for n in range(400)
    ]
    sent = Counter(act.topic for act in _mixed(iter(acts), Latency(rate=100, searches=5)))
    assert sent["clickstream"] == 200
    assert sent["searches"] / sent.total() == pytest.approx(0.05, abs=0.01)


def test_the_first_list_of_an_act_is_the_one_that_counts() -> None:
    reader = Reader(None)
    for at_ms, event_id in ((1.0, "a"), (2.0, "b"), (3.0, "a")):
        reader._came.append((at_ms, b'{"trigger":{"event_id":"%s"}}' % event_id.encode()))
    assert reader.came_ms() == {"a": 1.0, "b": 2.0}


def test_a_few_users_make_most_of_the_acts() -> None:
    load = Load(1000, 10)
    acts = Counter(act.key for act in load.acts(20_000))
    busiest = sum(n for _, n in acts.most_common(100))
    assert 0.25 < busiest / 20_000 < 0.4


def test_the_same_seed_makes_the_same_acts() -> None:
    first, second = (Load(20, 20).acts(50) for _ in range(2))
    assert [act.key for act in first] == [act.key for act in second]
    assert [act.key for act in Load(20, 20, seed=2).acts(50)] != [act.key for act in first]


def test_the_catalogue_has_each_item_with_a_vector_and_neighbours_that_are_others() -> None:
    outputs = Load(10, 300).catalogue("model", 16)
    assert Counter(output.topic for output in outputs) == {
        "items": 300,
        "item-embeddings": 300,
        "item-neighbours": 300,
    }
    neighbours = [read_item_neighbours(o.value or b"") for o in outputs if "neigh" in o.topic]
    assert all(facts.neighbours for facts in neighbours)
    assert not [f for f in neighbours if f.item_id in dict(f.neighbours)]
    ids = {msgspec.json.decode(o.value or b"")["item_id"] for o in outputs if o.topic == "items"}
    assert {other for facts in neighbours for other, _ in facts.neighbours} <= ids


def test_vectors_of_one_cluster_lie_closer_than_those_of_two(rng: np.random.Generator) -> None:
    labels = clusters(rng, 400)
    vectors = around_centres(rng, labels, 32)
    cosines = vectors @ vectors.T
    same = labels[:, None] == labels[None, :]
    np.fill_diagonal(same, False)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert cosines[same].mean() > cosines[labels[:, None] != labels[None, :]].mean() + 0.5


def test_a_mixed_vector_lies_between_two_given_ones(rng: np.random.Generator) -> None:
    given = np.eye(3, dtype=np.float32)
    found = mixed(rng, given, 50)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    assert (found >= 0).all()
    assert ((found > 0).sum(axis=1) <= 2).all()


@pytest.fixture
def busy() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    yield process
    process.kill()
    process.wait()


def test_the_cpu_time_of_a_process_grows_while_it_works_and_not_while_it_stands_still(
    busy: subprocess.Popen[bytes],
) -> None:
    def has_worked_since(before_s: float) -> bool:
        deadline = time.monotonic() + 30
        while cpu_s(busy.pid) < before_s + 0.05 and time.monotonic() < deadline:
            time.sleep(0.02)
        return cpu_s(busy.pid) >= before_s + 0.05

    assert has_worked_since(0.0)
    with standing_still([busy.pid]):
        time.sleep(0.05)
        before_s = cpu_s(busy.pid)
        time.sleep(0.2)
        assert cpu_s(busy.pid) == before_s
    assert has_worked_since(before_s)
