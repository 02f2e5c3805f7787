"""How much of when a machine works can be read from a series."""

from typing import Final

import numpy as np

from protocols.frame import SECOND, Flags, Floats
from protocols.vocabulary.states import LARGEST_CODE, OperatingState, lookup_table
from security.policy.compiled import Rule
from security.policy.tools.past import Past
from security.policy.tools.rebuilding import is_counter, sorted_column

BINS: Final = 8


def works_in(past: Past, rule: Rule) -> dict[int, bool]:
    """Return in which slots the machine works: by its state, else by this point's own level."""
    window = rule.window_s * SECOND
    table = past.tables[rule.device]
    state = next((one for one in table.points if one.state_model is not None), None)
    if state is not None:
        time, codes = sorted_column(past, rule.device, state.id)
        running = lookup_table(state.state_model or "")[
            np.clip(codes, 0, LARGEST_CODE).astype(np.int64)
        ] == int(OperatingState.RUN)
        values = running.astype(np.float64)
        middle = 0.5
    else:
        time, values = sorted_column(past, rule.device, rule.point)
        if is_counter(past, rule.device, rule.point):
            time, values = time[1:], np.diff(values)
        middle = float(values.min() + values.max()) / 2 if len(values) else 0.0
    slots, index = np.unique(time // window, return_inverse=True)
    if not len(slots):
        return {}
    means = np.bincount(index, values) / np.bincount(index)
    return dict(zip(slots.tolist(), (means > middle).tolist(), strict=True))


def information(values: Floats, works: Flags) -> float | None:
    """Return which share of the entropy of `works` the values tell; None where it hardly varies.

    Mutual information of `works` and the values in eight bins, over the entropy of `works`. It is
    biased upwards by about (bins - 1) / (2 n ln 2) bits, which is taken off (Miller and Madow).
    """
    share = float(works.mean())
    whole = _entropy(np.array([share, 1 - share]))
    if whole < 0.1:
        return None
    edges = np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1])
    bins = np.searchsorted(edges, values, side="right")
    rest = 0.0
    for one in np.unique(bins):
        inside = works[bins == one]
        on = float(inside.mean())
        rest += len(inside) / len(works) * _entropy(np.array([on, 1 - on]))
    bias = (BINS - 1) / (2 * len(works) * np.log(2))
    return float(min(max((whole - rest - bias) / whole, 0.0), 1.0))


def _entropy(shares: Floats) -> float:
    some = shares[shares > 0]
    return float(-(some * np.log2(some)).sum())
