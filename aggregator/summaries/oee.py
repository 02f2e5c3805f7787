"""OEE over a span: ratios of sums over hours, for a mean of hourly ratios would be another number.

ISO 22400-2: availability = APT / PBT, effectiveness = PRU x PQ / APT, quality ratio = GQ / PQ,
OEE = their product = PRU x GQ / PBT, NEE = AUPT / PBT x effectiveness x quality ratio.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from aggregator.series.derived.site import floats
from aggregator.stores import SeriesBlock, SeriesKey, Store
from protocols.frame import Flags, Floats, Ints
from protocols.vocabulary import kpi

FIELDS: Final = (
    "apt_s", "aupt_s", "pbt_s", "qty_total", "qty_good", "net_s", "valuable_s", "coverage",
)  # fmt: skip
_MOST_ROWS: Final = 100_000


@dataclass(frozen=True, slots=True)
class OeeHours:
    """Hours of one or more equipments: columns of one length, NaN where a value is not known."""

    time: Ints
    columns: dict[str, Floats]

    @staticmethod
    def joined(parts: Iterable["OeeHours"]) -> "OeeHours":
        """Return the hours of several equipments as one; for whom every one counts the same."""
        found = list(parts)
        return OeeHours(
            np.concatenate([np.zeros(0, np.int64), *(one.time for one in found)]),
            {
                name: np.concatenate([np.zeros(0), *(one.columns[name] for one in found)])
                for name in FIELDS
            },
        )


@dataclass(frozen=True, slots=True)
class OeeSpan:
    """OEE of a span; None is what cannot be computed.

    Where OEE can be computed, all of it is of the same hours, so that OEE is exactly the product
    of its factors; else each factor is of the hours that it can be computed in.

    Attributes:
        hours: that there is anything of, one for each equipment.
        used: that OEE is of; 0 where there is no OEE.
        apt_s, aupt_s, pbt_s: production, processing and planned busy time, seconds.
        net_s, valuable_s: PRU x PQ and PRU x GQ, seconds.
        qty_total, qty_good: pieces made in planned time.
    """

    hours: int
    used: int
    apt_s: float | None
    aupt_s: float | None
    pbt_s: float | None
    net_s: float | None
    valuable_s: float | None
    qty_total: float | None
    qty_good: float | None
    availability: float | None
    performance: float | None
    quality_ratio: float | None
    oee: float | None
    nee: float | None


def read(store: Store, key: SeriesKey, start_ns: int, end_ns: int) -> OeeHours:
    """Return the hours of one `ff_oee` series.

    Raises:
        StoreUnavailable: ask again later.
    """
    block: SeriesBlock = store.query(key, FIELDS, start_ns, end_ns, limit=_MOST_ROWS)
    return OeeHours(block.time, {name: floats(block, name) for name in FIELDS})


def over(hours: OeeHours) -> OeeSpan:
    """Return OEE over all hours."""
    columns = hours.columns
    whole = _known(columns, "apt_s", "aupt_s", "pbt_s", "qty_total", "net_s", "valuable_s")
    used = int(whole.sum())
    # Without one hour that has everything, each factor stands alone.
    of = dict.fromkeys(("a", "p", "q", "n"), whole)
    if not used:
        of["a"] = _known(columns, "apt_s", "pbt_s")
        of["p"] = _known(columns, "net_s", "apt_s")
        of["q"] = _known(columns, "qty_total", "qty_good")
        of["n"] = np.zeros(len(whole), np.bool_)

    def total(name: str, rows: Flags) -> float:
        return float(columns[name][rows].sum()) if rows.any() else np.nan

    availability = _ratio(total("apt_s", of["a"]), total("pbt_s", of["a"]))
    performance = _ratio(total("net_s", of["p"]), total("apt_s", of["p"]))
    net, valuable = total("net_s", of["n"]), total("valuable_s", of["n"])
    # Weighted by planned time, so that products of unlike cycle times add up to OEE.
    quality = (
        _ratio(valuable, net)
        if used
        else _ratio(total("qty_good", of["q"]), total("qty_total", of["q"]))
    )
    busy = _ratio(total("aupt_s", of["n"]), total("pbt_s", of["n"]))
    sums = {
        name: _number(total(name, whole if used else _known(columns, name)))
        for name in FIELDS
        if name != "coverage"
    }
    return OeeSpan(
        hours=len(hours.time),
        used=used,
        **sums,
        availability=_number(availability),
        performance=_number(performance),
        quality_ratio=_number(quality),
        oee=_number(_ratio(valuable, total("pbt_s", of["n"]))),
        nee=_number(busy * performance * quality),
    )


def received(hours: OeeHours, planned_s: Floats) -> float:
    """Return the seconds of planned time of which something is known.

    Args:
        hours: of one equipment.
        planned_s: planned seconds of each of these hours.
    """
    coverage = hours.columns["coverage"]
    return float((np.where(np.isnan(coverage), 0.0, coverage) * planned_s).sum())


def _known(columns: dict[str, Floats], *names: str) -> Flags:
    known: Flags = np.logical_and.reduce([~np.isnan(columns[name]) for name in names])
    return known


def _ratio(part: float, whole: float) -> float:
    return float(kpi.ratio(np.array(part), np.array(whole)))


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value
