"""Reviews of an invented shop in two languages, for tests of what learns from them."""

from __future__ import annotations

import numpy as np

_NEUTRAL = ["the", "a", "i", "it", "this", "size", "colour", "box", "arrived", "for", "my", "day"]
_PRAISE = ["love it", "works very well", "worth it", "很好", "非常喜欢", "值得购买", "质量不错"]
_BLAME = ["broke at once", "not worth it", "waste of money", "很差", "不好用", "不推荐", "非常失望"]
_CHINESE = "的我了这个买东西快递衣服手机收到今天"


def reviews(n: int = 600, seed: int = 0, share_wrong: float = 0.08) -> tuple[list[str], list[bool]]:
    """Return texts and whether their writers were content; of some the text says otherwise."""
    rng = np.random.default_rng(seed)
    texts, content = list[str](), list[bool]()
    for _ in range(n):
        is_content = bool(rng.random() < 0.6)
        said = is_content != bool(rng.random() < share_wrong)
        phrase = str(rng.choice(_PRAISE if said else _BLAME))
        if phrase.isascii():
            words = [str(word) for word in rng.choice(_NEUTRAL, rng.integers(3, 10))]
            words.insert(int(rng.integers(len(words))), phrase)
            texts.append(" ".join(words))
        else:
            before, after = ("".join(rng.choice(list(_CHINESE), 4).tolist()) for _ in range(2))
            texts.append(f"{before}{phrase}，{after}。")
        content.append(is_content)
    return texts, content
