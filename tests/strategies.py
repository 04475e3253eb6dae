"""Hypothesis strategies made from the event types, so that a new field is tested at once."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import inspect

#: What UTF-8 can carry: everything but surrogates.
texts = st.characters(exclude_categories=["Cs"])

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(texts, max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(texts, max_size=4), inner, max_size=3)
    ),
    max_leaves=5,
)


def values_of(struct: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    """Every kind of value that a type allows, constraints included."""
    return _strategy(inspect.type_info(struct))


def _strategy(kind: inspect.Type) -> st.SearchStrategy[Any]:
    match kind:
        case inspect.Metadata():
            return _strategy(kind.type)
        case inspect.StructType():
            return st.builds(kind.cls, **{f.name: _strategy(f.type) for f in kind.fields})
        case inspect.UnionType():
            return st.one_of(*map(_strategy, kind.types))
        case inspect.LiteralType():
            return st.sampled_from(kind.values)
        case inspect.ListType():
            return st.lists(_strategy(kind.item_type), max_size=4)
        case inspect.NoneType() | inspect.BoolType():
            return st.none() if isinstance(kind, inspect.NoneType) else st.booleans()
        case inspect.StrType():
            return st.text(texts, min_size=kind.min_length or 0, max_size=20)
        case inspect.IntType():
            low = kind.gt + 1 if kind.gt is not None else kind.ge
            high = kind.lt - 1 if kind.lt is not None else kind.le
            return st.integers(low, high if high is not None else 2**63 - 1)
        case inspect.FloatType():
            return st.floats(
                kind.gt if kind.ge is None else kind.ge,
                kind.le,
                exclude_min=kind.gt is not None,
                allow_nan=False,
                allow_infinity=False,
            )
    raise NotImplementedError(f"no strategy for {kind}")
