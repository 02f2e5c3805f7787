"""The leak budget: how much has left to each consumer today, and when that is enough.

A day is one of UTC, and it is the day on which something leaves. What is beyond the budget is thrown
away, and never sent later: its slots are missing.
"""

from typing import Any, Final

import numpy as np

from protocols import batch
from protocols.batch import NO_VALUE, Block
from security.policy.compiled import CompiledPolicy, Terms

_DAY_S: Final = 86_400


class Spent:
    """What has left to one consumer on one day."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.day = 0
        self.rows = 0
        self.bytes = 0

    @property
    def limited(self) -> bool:
        """Whether there is anything to watch."""
        return bool(self.terms.budget_rows or self.terms.budget_bytes)

    def allow(self, block: Block) -> Block | None:
        """Return as many of a block's first rows as may still leave, and count them."""
        limit = self.terms.budget_rows
        if limit:
            values = np.cumsum(np.count_nonzero(block.quality != NO_VALUE, axis=1))
            block_rows = int(np.searchsorted(values, limit - self.rows, side="right"))
            if block_rows == 0:
                return None
            block = _first(block, block_rows)
        if self.terms.budget_bytes:
            size = len(batch.encode([block]))
            if self.bytes + size > self.terms.budget_bytes:
                return None
            self.bytes += size
        self.rows += block.values
        return block


def _first(block: Block, rows: int) -> Block:
    if rows >= block.rows:
        return block
    within = block.span_cells < rows * len(block.numbers)
    return Block(
        slot=block.slot,
        numbers=block.numbers,
        mantissa=block.mantissa[:rows],
        quality=block.quality[:rows],
        span_cells=block.span_cells[within],
        spans=block.spans[within],
    )


class Budgets:
    """The budgets of a policy.

    Attributes:
        exceeded: ids of the consumers to which something did not leave today; local only.
    """

    def __init__(self, policy: CompiledPolicy) -> None:
        self._spent = [Spent(terms) for terms in policy.consumers]
        self._owner = {one.stream: self._spent[one.consumer] for one in policy.leaving}
        self.exceeded: set[str] = set()

    def allow(self, stream: int, blocks: list[Block], now_s: int) -> list[Block]:
        """Return what of a stream's blocks may leave now."""
        spent = self._owner[stream]
        if not spent.limited:
            return blocks
        day = now_s // _DAY_S
        if day > spent.day:
            spent.day, spent.rows, spent.bytes = day, 0, 0
            self.exceeded.discard(spent.terms.id)
        kept = []
        for block in blocks:
            allowed = spent.allow(block)
            if allowed is not None:
                kept.append(allowed)
            if allowed is None or allowed.rows < block.rows:
                self.exceeded.add(spent.terms.id)
        return kept

    def dump(self) -> list[Any]:
        """Return what was spent as CBOR-able data."""
        return [
            [one.terms.encryption_key, one.day, one.rows, one.bytes]
            for one in self._spent
            if one.limited
        ]

    def load(self, data: list[Any]) -> None:
        """Take over what was spent; consumers are known by their keys."""
        by_key = {key: numbers for key, *numbers in data}
        for one in self._spent:
            if one.terms.encryption_key in by_key:
                one.day, one.rows, one.bytes = by_key[one.terms.encryption_key]
