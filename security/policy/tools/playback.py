"""Plays a past through the gate itself: what comes out is what would have left."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from protocols.batch import NO_VALUE, Block
from protocols.frame import SECOND, Bytes, Ints
from security.policy.compiled import CompiledPolicy
from security.policy.gate import LATENESS_NS, Gate
from security.policy.tools.past import Past

_TICK_NS: Final = 30 * SECOND
"""Shorter than the pause after which the gate believes no value any more."""
_FOR_EVER: Final = 1 << 40


@dataclass(frozen=True, slots=True, eq=False)
class Released:
    """What would leave under one number.

    Attributes:
        slot: shape (n,), indices of slots, strictly ascending.
        mantissa, quality, span: shape (n,), as in a batch; slots without value are left out.
    """

    slot: Ints
    mantissa: Ints
    quality: Bytes
    span: Ints


@dataclass(frozen=True, slots=True)
class Played:
    """What a policy does with a past.

    Attributes:
        released: by number.
        suspended: what is wrong with rules whose source is not what the policy says.
        samples: by device, how many values came in.
    """

    released: Mapping[int, Released]
    suspended: tuple[str, ...]
    samples: Mapping[str, int]


class _Clock:
    """The wall clock of the past."""

    def __init__(self, now_ns: int) -> None:
        self.now_ns = now_ns

    def __call__(self) -> int:
        return self.now_ns


def play(policy: CompiledPolicy, past: Past) -> Played:
    """Run a past through the gate under a policy, as if the policy had been in force then.

    The slots whose end lies beyond the past are left out: the agent would not have closed them yet.

    Raises:
        MillgateError: when the past is empty.
    """
    first_ns, last_ns = past.span_ns
    clock = _Clock(first_ns)
    then = policy.model_copy(update={"valid_from": 0, "valid_until": _FOR_EVER, "stopped": 0})
    gate = Gate(then, past.tables, clock)
    blocks: list[tuple[int, Block]] = []
    windows = {rule.stream: rule.window_s for rule in policy.leaving}
    gate.advance()
    for frame in past.frames:
        # No slot closes between the rows of a frame, for the first of them are not late.
        _tick(gate, clock, int(frame.time.min()), blocks)
        clock.now_ns = max(clock.now_ns, int(frame.time.max()))
        gate.feed(frame)
    _tick(gate, clock, last_ns + LATENESS_NS + _longest_delay_ns(policy), blocks)
    _take(gate, blocks)
    ends = {stream: last_ns // (window * SECOND) for stream, window in windows.items()}
    return Played(
        released=_by_number(blocks, ends),
        suspended=tuple(gate.suspended),
        samples={device: book.produced for device, book in gate.accounts.items()},
    )


def _longest_delay_ns(policy: CompiledPolicy) -> int:
    return max((one.delay_s for one in policy.leaving), default=0) * SECOND


def _tick(gate: Gate, clock: _Clock, until_ns: int, blocks: list[tuple[int, Block]]) -> None:
    while clock.now_ns < until_ns:
        clock.now_ns = min(clock.now_ns + _TICK_NS, until_ns)
        gate.advance()
        if gate.full:
            _take(gate, blocks)


def _take(gate: Gate, blocks: list[tuple[int, Block]]) -> None:
    for stream, found in gate.take().items():
        blocks += [(stream, block) for block in found]


def _by_number(blocks: Iterable[tuple[int, Block]], ends: Mapping[int, int]) -> dict[int, Released]:
    parts: dict[int, list[tuple[Ints, Ints, Bytes, Ints]]] = {}
    for stream, block in blocks:
        spans = block.span_matrix()
        slots = block.slot + np.arange(block.rows)
        for column, number in enumerate(block.numbers.tolist()):
            has = (block.quality[:, column] != NO_VALUE) & (slots < ends[stream])
            parts.setdefault(number, []).append(
                (
                    slots[has],
                    block.mantissa[has, column],
                    block.quality[has, column],
                    spans[has, column],
                )
            )
    return {number: _joined(found) for number, found in sorted(parts.items())}


def _joined(parts: list[tuple[Ints, Ints, Bytes, Ints]]) -> Released:
    slot, mantissa, quality, span = (
        np.concatenate(columns) for columns in zip(*parts, strict=True)
    )
    order = np.argsort(slot, kind="stable")
    return Released(slot[order], mantissa[order], quality[order], span[order])
