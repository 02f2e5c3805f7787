"""Series of longer slots, of what left and of the truth: what attacks are made of."""

from collections.abc import Mapping

import numpy as np

from protocols.frame import SECOND, Floats, Ints
from security.policy.compiled import CompiledPolicy, Rule
from security.policy.tools.inference import Disclosure
from security.policy.tools.model import AMOUNT, MOMENT, Unknown, label_of
from security.policy.tools.past import Past
from security.policy.tools.playback import Played, Released


def combine(policy: CompiledPolicy, played: Played, found: Disclosure) -> dict[int, float]:
    """Return the estimate of each slot for which everything in the combination left."""
    rules = {label_of(policy, rule): rule for rule in policy.rules}
    series = []
    for label, share in found.combination.items():
        rule = rules.get(label)
        if rule is not None:
            series.append((float(share), coarsened(rule, played.released, found.window_s)))
    if not series:
        return {}
    common = set.intersection(*(set(values) for _, values in series))
    return {slot: sum(share * values[slot] for share, values in series) for slot in sorted(common)}


def coarsened(rule: Rule, released: Mapping[int, Released], window_s: int) -> dict[int, float]:
    """Return what left under a rule as values of longer slots; slots that miss a part are left out."""
    found = released.get(rule.number)
    if found is None:
        return {}
    values = found.mantissa * 10.0**rule.exponent
    many = window_s // rule.window_s
    if rule.aggregate == "last":
        at = (found.slot + 1) % many == 0
        return dict(zip((found.slot[at] // many).tolist(), values[at].tolist(), strict=True))
    whole = found.span == 1
    slots, index, counts = np.unique(
        found.slot[whole] // many, return_inverse=True, return_counts=True
    )
    sums: Floats = np.bincount(index, values[whole], len(slots)).astype(np.float64)
    if rule.aggregate == "mean":
        sums = sums / many
    full = counts == many
    return dict(zip(slots[full].tolist(), sums[full].tolist(), strict=True))


def true_series(past: Past, unknown: Unknown, window_s: int) -> dict[int, float]:
    """Return the true value of a point in each slot, from the past."""
    quantity, name = unknown
    device, _, point = name.partition("/")
    time, values = sorted_column(past, device, point)
    window = window_s * SECOND
    if not len(time):
        return {}
    slots = np.arange(int(time[0]) // window + 1, int(time[-1]) // window)
    if not len(slots):
        return {}
    if is_counter(past, device, point) and quantity == AMOUNT:
        readings = at_moments(time, values, np.append(slots, slots[-1] + 1) * window)
        return dict(zip(slots.tolist(), np.diff(readings).tolist(), strict=True))
    if quantity == MOMENT:
        return dict(
            zip(
                slots.tolist(),
                at_moments(time, values, (slots + 1) * window - 1).tolist(),
                strict=True,
            )
        )
    index = time // window
    means = {}
    for slot in slots.tolist():
        inside = values[np.searchsorted(index, slot) : np.searchsorted(index, slot + 1)]
        if len(inside):
            means[slot] = float(inside.mean())
    return means


def is_counter(past: Past, device: str, point: str) -> bool:
    """Tell whether a point is a counter."""
    table = past.tables[device]
    found = next(one for one in table.points if one.id == point)
    return str(found.standard.kind) == "counter"


def at_moments(time: Ints, values: Floats, moments: Ints) -> Floats:
    """Return the last value at or before each moment."""
    found: Floats = values[np.maximum(np.searchsorted(time, moments, side="right") - 1, 0)]
    return found


def sorted_column(past: Past, device: str, point: str) -> tuple[Ints, Floats]:
    """Return times and usable values of a point, in the order of time."""
    time, values = past.column(device, point)
    order = np.argsort(time, kind="stable")
    return time[order], values[order]
