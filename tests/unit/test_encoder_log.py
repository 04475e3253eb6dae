"""From a log to what an encoder is trained on: the encode tier's texts, and no look ahead."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from builders import NOW_MS, interaction, item, search

from models.training.encoder import TooLittle
from models.training.examples import Example
from stream.formats import Record
from stream.settings import DEFAULT_WEIGHTS
from stream.training.encoder import read_behaviour

# The encode stage, whose texts are read here, takes a second to import.
MINUTE_MS = 60_000


def record(topic: str, event) -> Record:
    key = getattr(event, "item_id" if topic == "items" else "user_id")
    return Record(topic, key.encode(), msgspec.json.encode(event), NOW_MS)


def catalogue(*titles: str) -> list[Record]:
    return [record("items", item(item_id=f"i{n}", title=t)) for n, t in enumerate(titles)]


def acts(user: str, *items: int, start: int = 0, **fields) -> list[Record]:
    return [
        record(
            "clickstream",
            interaction(
                event_id=f"{user}-{start + n}",
                user_id=user,
                item_id=f"i{number}",
                event_time_ms=NOW_MS + (start + n) * MINUTE_MS,
                **fields,
            ),
        )
        for n, number in enumerate(items)
    ]


def behaviour_of(records: list[Record], objective: str = "history", held_out: float = 0.001):
    return read_behaviour(records, DEFAULT_WEIGHTS, 0.5, objective, held_out)[0]


def learnt(behaviour) -> list[Example]:
    return [example for group in behaviour.groups for example in group]


def test_items_are_read_as_the_encode_tier_reads_them() -> None:
    records = [record("items", item(item_id="i0", title="Boots", brand="Acme")), *acts("u", 0)]
    assert behaviour_of(records).texts == ["Boots. Acme"]


def test_what_was_taken_speaks_for_what_is_taken_next() -> None:
    records = [*catalogue("a", "b", "c", "d"), *acts("u", 0, 1, 2, 3)]
    assert learnt(behaviour_of(records)) == [
        Example((0,), (1.0,), 1),
        Example((0, 1), (0.5, 1.0), 2),
    ]
    assert Example((1,), (1.0,), 2) in learnt(behaviour_of(records, "pairs"))


def test_what_is_held_out_lies_behind_in_time_whoever_acts() -> None:
    early = acts("u", 0, 1, 2)
    late = acts("v", 3, 2, 1, start=1000)
    behaviour = behaviour_of([*catalogue("a", "b", "c", "d"), *early, *late], held_out=0.5)
    assert {example.chosen for example in learnt(behaviour)} == {1, 2}
    assert [example.chosen for example in behaviour.held_out.examples] == [2, 1]
    assert behaviour.held_out.items.tolist() == [0, 1, 2, 3]


def test_acts_that_say_nothing_for_an_item_are_left_out() -> None:
    records = [*catalogue("a", "b", "c"), *acts("u", 0)]
    records += [
        *acts("u", 1, start=1, type="dislike"),
        *acts("u", 1, start=2, type="impression"),
        *acts("u", 9, start=3),  # not in the catalogue
        *acts("u", 0, start=4, type="purchase"),  # what was clicked before
        *acts("u", 2, start=5),
        *acts("u", 2, start=5),  # sent twice
        *acts("v", 0, start=99),
    ]
    assert learnt(behaviour_of(records)) == [Example((0,), (1.0,), 2)]


def test_items_of_one_text_are_one() -> None:
    behaviour = behaviour_of([*catalogue("a", "b", "a"), *acts("u", 0, 1, 2), *acts("v", 0)])
    assert behaviour.texts == ["a", "b"]


def test_a_search_speaks_for_what_was_clicked_or_taken_next() -> None:
    def searched(query: str, at: int, **fields) -> Record:
        time_ms = NOW_MS + at * MINUTE_MS - 1
        event_id = f"s-{query}"
        event = search(event_id=event_id, user_id="u", query=query, event_time_ms=time_ms, **fields)
        return record("searches", event)

    behaviour = behaviour_of(
        [
            *catalogue("a", "b", "c"),
            searched("clicked", 0, clicked_item_ids=["i2", "i9"]),
            searched("taken", 10),
            searched("nothing came of it", 20),
            *acts("u", 0, start=11),
            *acts("u", 1, start=90),
            *acts("v", 0, start=99),
        ]
    )
    texts = behaviour.texts
    spoke = {
        texts[example.anchor[0]]: texts[example.chosen]
        for example in learnt(behaviour)
        if behaviour.is_query[example.anchor[0]]
    }
    assert spoke == {"clicked": "c", "taken": "a"}


def test_a_log_without_acts_is_too_little() -> None:
    with pytest.raises(TooLittle, match="no acts on items with a text"):
        behaviour_of(catalogue("a", "b"))


# --- the command ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_trains_on_a_log_and_the_encode_tier_takes_the_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from encoder_shop import N_THEMES, PER_THEME, titles
    from failing_device import small_bert

    from models.bert_encoder import BertEncoder
    from models.weights import resolve
    from stream.cli import run

    lines = [
        {"topic": "items", "value": msgspec.to_builtins(item(item_id=f"i{n}", title=title))}
        for n, title in enumerate(titles())
    ]
    for user in range(40):
        for place in range(5):
            number = (place + user) % PER_THEME * N_THEMES + user % N_THEMES
            act = interaction(
                event_id=f"{user}-{place}",
                user_id=f"u{user}",
                item_id=f"i{number}",
                event_time_ms=NOW_MS + place * MINUTE_MS,
            )
            lines.append({"topic": "clickstream", "value": msgspec.to_builtins(act)})
    log = tmp_path / "log.jsonl"
    log.write_text("\n".join(map(json.dumps, lines)))
    arguments = [
        "train", "encoder", str(log), "--format", "jsonl", "--out", str(tmp_path / "shop-bert"),
        "--base", str(small_bert(tmp_path / "small")), "--steps", "40", "--validate-every", "10",
        "--held-out", "0.2", "--learning-rate", "0.01", "--texts", "24",
    ]  # fmt: skip
    assert run(arguments) == 0
    said = capsys.readouterr().out
    assert "ndcg_at_10 0." in said
    assert "written to" in said
    encoder = BertEncoder(resolve(str(tmp_path / "shop-bert")), device="cpu")
    assert encoder.encoder_id.startswith("shop-bert-")
    assert encoder.encode(["a b c"]).shape == (1, 32)
    assert run(arguments) == 1
    assert "something already" in capsys.readouterr().err
