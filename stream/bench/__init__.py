"""The measurements behind the README's speed figures: each a ratio, its two sides in one run."""
