"""How far a device's clock is from ours, by the newest time that it put on a value.

A value may be older than its arrival for good reasons, but never newer: the largest of many
differences is the clock's. So a clock ahead shows with one value, a clock behind only when all that
comes for a while is old. Nothing of this leaves the factory.
"""

from typing import Final

import numpy as np

from protocols.frame import SECOND, Frame, Quality
from protocols.language import tr

TOLERATED_S: Final = 60
"""A larger difference is told."""

_SPAN_NS: Final = 600 * SECOND
_ENOUGH: Final = 10


class Skew:
    """The clock of one device; differences of the last ten to twenty minutes count."""

    def __init__(self) -> None:
        self._began_ns = 0
        self._before: int | None = None
        self._now: int | None = None
        self._frames = 0

    def take(self, frame: Frame, now_ns: int) -> None:
        """Look at the times of a frame that has just come."""
        present = frame.quality < Quality.ABSENT
        if frame.clock is not None or not present.any():
            return
        ahead = int(np.max(frame.cell_times()[present])) - now_ns
        # A wall clock that was set back begins anew as well.
        if not 0 <= now_ns - self._began_ns < _SPAN_NS:
            self._began_ns, self._before, self._now = now_ns, self._now, None
        self._now = ahead if self._now is None else max(self._now, ahead)
        self._frames += 1

    @property
    def ahead_s(self) -> float | None:
        """By how many seconds the device is ahead, negative for behind; None while it cannot be told."""
        known = [one for one in (self._before, self._now) if one is not None]
        if not known or (self._frames < _ENOUGH and max(known) <= 0):
            return None
        return max(known) / SECOND

    def line(self) -> str:
        """Return what a person should know; empty while the clock is right, as far as can be told."""
        ahead_s = self.ahead_s
        if ahead_s is None or abs(ahead_s) <= TOLERATED_S:
            return ""
        seconds = round(abs(ahead_s))
        if ahead_s > 0:
            return tr(
                f"its clock is {seconds} s ahead of this machine's (in the last 20 minutes); set one right",
                f"其时钟比本机快 {seconds} 秒（最近 20 分钟内）；请校正其中之一",
            )
        return tr(
            f"all that comes is stamped {seconds} s ago or earlier: its clock is behind this machine's, or "
            "nothing has changed",
            f"收到的数据时间戳均早于 {seconds} 秒前：其时钟比本机慢，或数值一直未变",
        )
