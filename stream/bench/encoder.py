"""encoder: BertEncoder by each runtime against the model as transformers runs it out of the box."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from time import perf_counter
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from models.bert_encoder import BertEncoder
from models.runtimes import Runtime, runtimes_on
from models.weights import ModelFiles, resolve
from stream.bench.load import wall_ms
from stream.bench.report import Figure, median_and_spread, number
from stream.bench.rounds import OnTurn, Sample, Values, turns
from stream.bench.sizes import Encoder
from stream.bench.vectors import Vectors, unit
from stream.demo.shop import build_shop
from stream.settings import Settings

SHORT_TOKENS, LONG_TOKENS = 12, 64
#: Texts differ in length by so much of it, as titles and reviews do.
_VARIES = 0.5
#: Of either side at most so many texts at once.
_BATCH = 64
_SEED = 7
_STOCK = "transformers"

Encode = Callable[[Sequence[str]], Vectors]


def measure(size: Encoder, settings: Settings, on_turn: OnTurn) -> Figure:
    """Encode short texts, long texts and single ones; raises ModelError without the model.

    The values are those of the runtime that the settings choose; the table has the others too.
    """
    files = resolve(settings.encoder)
    chosen = _open(files, settings.encoder_device, settings.encoder_runtime)
    others = [name for name in runtimes_on(chosen.device) if name != chosen.runtime]
    ours = {name: _open(files, chosen.device, name) for name in others} | {chosen.runtime: chosen}
    stock = StockEncoder(files, chosen.device)
    make = _Texts(stock)
    texts = {
        "short": make(SHORT_TOKENS, size.short_texts),
        "long": make(LONG_TOKENS, size.long_texts),
    }
    sides: dict[str, Encode] = {_STOCK: stock.encode}
    sides |= {name: encoder.encode for name, encoder in ours.items()}
    cosines = _lowest_cosines(sides, texts.values())
    speeds = {kind: Values() for kind in texts}
    single_ms = Values()
    for side, _ in turns(list(sides), size.rounds, on_turn):
        for kind, batch in texts.items():
            speeds[kind].add(side, _texts_per_s(sides[side], batch))
        single_ms.add(side, _single_ms(sides[side], texts["short"][: size.singles]))
    rows = [
        _row(
            f"{kind} texts, {stock.mean_tokens(texts[kind]):.0f} tokens", side, speed, "texts/s", of
        )
        for kind, values in speeds.items()
        for side in sides
        for speed, of in ((values[side], values[side].over(values[_STOCK])),)
    ]
    rows += [
        _row("one short text", side, single_ms[side], "ms", single_ms[_STOCK].over(single_ms[side]))
        for side in sides
    ]
    told = [f"{name} {encoder.dtype}, cosine {cosines[name]:.6f}" for name, encoder in ours.items()]
    return Figure(
        "encoder",
        {
            **{
                f"{kind}_ratio": values[chosen.runtime].over(values[_STOCK]).median
                for kind, values in speeds.items()
            },
            "min_cosine": cosines[chosen.runtime],
            "single_ms": single_ms[chosen.runtime].median,
        },
        ("texts", "side", "speed", "±", "times transformers"),
        rows,
        f"{chosen.encoder_id} on {chosen.device}, where the settings choose {chosen.runtime}. "
        f"Sorted by length: {'; '.join(told)} at the lowest. transformers: eager float32 as the "
        f"texts come, batches of {_BATCH}.",
    )


def _open(files: ModelFiles, device: str, runtime: Runtime) -> BertEncoder:
    return BertEncoder(files, device=device, runtime=runtime, batch_size=_BATCH)


def _row(texts: str, side: str, sample: Sample, unit: str, times: Sample) -> tuple[str, ...]:
    ratio = "1" if side == _STOCK else number(times.median)
    return (texts, side, *median_and_spread(sample, unit), ratio)


class StockEncoder:
    """transformers as its manual shows it: eager attention, float32, texts in the order given."""

    def __init__(self, files: ModelFiles, device: str) -> None:
        self._files, self._device = files, device
        self._n_threads = torch.get_num_threads()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(files.folder, local_files_only=True)
        model: Any = AutoModel.from_pretrained(
            files.folder,
            local_files_only=True,
            use_safetensors=True,
            dtype=torch.float32,
            attn_implementation="eager",
        )
        self._model = model.to(device).eval()

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return one unit vector per text, shape (len(texts), dim)."""
        # Ours takes one thread for few tokens, and torch has but one number for all.
        torch.set_num_threads(self._n_threads)
        passages = [self._files.prefix("passage") + text for text in texts]
        with torch.inference_mode():
            vectors = [
                self._forward(passages[start : start + _BATCH])
                for start in range(0, len(passages), _BATCH)
            ]
        return unit(np.concatenate(vectors))

    def _forward(self, texts: Sequence[str]) -> Vectors:
        tokens = self.tokenizer(texts, padding=True, return_tensors="pt").to(self._device)
        hidden = self._model(**tokens).last_hidden_state
        if self._files.pooling == "cls":
            pooled = hidden[:, 0]
        else:
            mask = tokens["attention_mask"].unsqueeze(-1).to(hidden.dtype)
            pooled = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
        return np.asarray(pooled.float().cpu().numpy())

    def mean_tokens(self, texts: Sequence[str]) -> float:
        return float(np.mean([len(ids) for ids in self.tokenizer(list(texts))["input_ids"]]))


class _Texts:
    """Makes texts of about so many tokens from the words of a shop."""

    def __init__(self, stock: StockEncoder) -> None:
        self._rng = np.random.default_rng(_SEED)
        shop = build_shop(_SEED, wall_ms()).items.values()
        titles = [each.item.title for each in shop if each.item.locale == "en"]
        self._words = sorted({word for title in titles for word in title.split()})
        # Special tokens are not of the words, but of every text.
        self._special = stock.mean_tokens([""])
        self._per_word = stock.mean_tokens([" ".join(self._words)]) - self._special
        self._per_word /= len(self._words)

    def __call__(self, tokens: int, n: int) -> list[str]:
        wanted = self._rng.uniform(1 - _VARIES, 1 + _VARIES, n) * tokens
        n_words = np.maximum(np.rint((wanted - self._special) / self._per_word), 1).astype(int)
        return [" ".join(self._rng.choice(self._words, k)) for k in n_words.tolist()]


def _texts_per_s(encode: Encode, texts: Sequence[str]) -> float:
    started = perf_counter()
    encode(texts)
    return len(texts) / (perf_counter() - started)


def _single_ms(encode: Encode, texts: Sequence[str]) -> float:
    """Return the median time of one text alone."""
    times = [1000 / _texts_per_s(encode, [text]) for text in texts]
    return float(np.median(times))


def _lowest_cosines(
    sides: Mapping[str, Encode], batches: Iterable[Sequence[str]]
) -> dict[str, float]:
    """Return each side's lowest cosine to transformers' vectors; what comes first is not timed."""
    lowest = dict.fromkeys(sides, 1.0)
    for texts in batches:
        stock = sides[_STOCK](texts)
        for side, encode in sides.items():
            cosine = float((encode(texts) * stock).sum(axis=1).min())
            lowest[side] = min(lowest[side], cosine)
    return lowest
