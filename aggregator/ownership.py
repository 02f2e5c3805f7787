"""One datum, one source (一数一源): which agent a site's datum comes from.

Where two agents of one site release the same measurand of the same equipment, the one whose release
sheet said so first owns it. What another sends for it is refused and told, never mixed in.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from aggregator.config import Factory
from aggregator.inbox import Opener
from aggregator.ledger import Ledger
from aggregator.series.runs import PointSet
from aggregator.stores import FieldColumn, SeriesBlock, SeriesKey
from protocols.batch import NO_VALUE, Block
from protocols.errors import MillgateError
from protocols.frame import SECOND, Flags
from security.policy.compiled import SheetPoint

_HOUR_NS = 3600 * SECOND

Datum = tuple[str, str]
"""Equipment and measurand."""


class Owners:
    """Knows the owners of data of sites that have several agents."""

    def __init__(self, ledger: Ledger, opener: Opener) -> None:
        self._ledger = ledger
        self._opener = opener
        self._seen: tuple[object, ...] = ()
        self._owner: dict[tuple[str, str, str, str], int] = {}

    def refresh(self, names: Mapping[int, Factory]) -> bool:
        """Look at the sheets there are now; True says that something may have changed."""
        shared = _shared(names)
        sheets = self._ledger.sheets_in_order(shared) if shared else []
        seen = (tuple(sorted((n, f.enterprise, f.site) for n, f in names.items())), tuple(sheets))
        if seen == self._seen:
            return False
        self._seen = seen
        self._owner = {}
        for agent, sheet_hash in sheets:
            name = names[agent]
            for equipment, measurand in self._data(agent, sheet_hash):
                place = (name.enterprise, name.site, equipment, measurand)
                self._owner.setdefault(place, agent)
        return True

    def _data(self, agent: int, sheet_hash: bytes) -> Iterable[Datum]:
        try:
            known = self._opener.sheet(agent, sheet_hash)
        except MillgateError:
            # A sheet that cannot be verified any more owns nothing; its batches are told elsewhere.
            known = None
        points = known.signed.sheet.points if known is not None else []
        return {(point.equipment, point.measurand) for point in points}

    def own(self, agent: int, name: Factory, points: Sequence[SheetPoint]) -> Flags:
        """Tell which points' data an agent owns, shape (c,)."""
        return np.array(
            [
                self._owner.get((name.enterprise, name.site, one.equipment, one.measurand), agent)
                == agent
                for one in points
            ],
            np.bool_,
        )


def _shared(names: Mapping[int, Factory]) -> list[int]:
    """Return the agents that are not alone at their site."""
    by_site: dict[tuple[str, str], list[int]] = {}
    for agent, name in names.items():
        by_site.setdefault((name.enterprise, name.site), []).append(agent)
    return sorted(agent for group in by_site.values() if len(group) > 1 for agent in group)


def columns_of(block: Block, keep: Flags) -> Block:
    """Return a block with only some of its columns."""
    spans = block.span_matrix()[:, keep]
    cells = np.flatnonzero(spans.ravel() > 1)
    return Block(
        slot=block.slot,
        numbers=block.numbers[keep],
        mantissa=np.ascontiguousarray(block.mantissa[:, keep]),
        quality=np.ascontiguousarray(block.quality[:, keep]),
        span_cells=cells,
        spans=spans.ravel()[cells],
    )


def second_sources(points: PointSet, own: Flags, block: Block) -> list[SeriesBlock]:
    """Return `ff_refused`: per hour, that values of another agent's data were not taken."""
    window_ns = points.window_s * SECOND
    found: dict[SeriesKey, SeriesBlock] = {}
    for column in np.flatnonzero(~own).tolist():
        sent = np.flatnonzero(block.quality[:, column] != NO_VALUE)
        hours = np.unique((block.slot + sent) * window_ns // _HOUR_NS) * _HOUR_NS
        line = points.points[column]
        key = SeriesKey.of(
            "ff_refused",
            {
                "enterprise_id": points.enterprise,
                "site_id": points.site,
                "equipment_id": line.equipment,
                "measurand": line.measurand,
            },
        )
        if len(hours) and key not in found:
            fields: dict[str, FieldColumn] = {
                "window_s": np.full(len(hours), _HOUR_NS // SECOND, np.int64),
                "reason": ["another agent is the source of this datum"] * len(hours),
            }
            found[key] = SeriesBlock(key, hours, fields)
    return list(found.values())
