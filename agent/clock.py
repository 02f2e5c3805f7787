"""The clock: slots lie on the wall clock, so while that cannot be believed nothing leaves."""

import time
from collections.abc import Callable
from typing import Final

from agent.kept_clock import KeptClock, Standing
from protocols.frame import SECOND, NowNs
from protocols.language import tr
from protocols.moments import utc_words
from protocols.running import boot_id, running_ns
from protocols.settings import duration_text

LARGEST_JUMP_NS: Final = 120 * SECOND
"""A larger step of the wall clock against the running time of the machine is a jump."""

STEADY_NS: Final = 300 * SECOND
"""How long the clock must go evenly after a jump before anything leaves again."""

_SPAN_NS: Final = 600 * SECOND
_MINUTE_NS: Final = 60 * SECOND
_KEEP_NS: Final = 30 * SECOND


class ClockWatch:
    """Compares the wall clock with the machine's running time, and with what was committed.

    Attributes:
        fault: why the clock is not believed now; empty while it is.
        steady_ns: how long it must go evenly after a jump.
    """

    def __init__(
        self,
        now_ns: NowNs = time.time_ns,
        running: Callable[[], int] = running_ns,
        steady_ns: int = STEADY_NS,
        kept: KeptClock | None = None,
    ) -> None:
        """Begin to watch.

        Args:
            now_ns: the wall clock.
            running: the machine's running time, ns.
            steady_ns: how long the clock must go evenly after a jump.
            kept: where it is kept how the clocks stood, for the next start.
        """
        self.fault = ""
        self.steady_ns = steady_ns
        self._now = now_ns
        self._running = running
        self._committed_ns = 0
        self._jumped_ns: int | None = None
        self._until_s = 0
        self._base_ns = now_ns() - running()
        self._based_ns = running()
        self._kept = kept
        self._boot = boot_id() if kept is not None else ""
        self._keep_at_ns = 0
        before = kept.read() if kept is not None else None
        if before is not None and abs(self._standing().moved_ns(before)) > LARGEST_JUMP_NS:
            self._has_jumped(running())
            self._judge(running())

    def keep(self) -> None:
        """Write down, now and then, how the clocks stand, for the next start; only what is believed."""
        running = self._running()
        if self._kept is None or self.fault or running < self._keep_at_ns:
            return
        self._keep_at_ns = running + _KEEP_NS
        self._kept.write(self._standing())

    def _standing(self) -> Standing:
        return Standing(self._boot, self._now(), self._running())

    def committed(self, at_s: int) -> None:
        """Note when a message was committed before; the time cannot be earlier now."""
        self._committed_ns = max(self._committed_ns, at_s * SECOND)
        self._judge(self._running())

    def released(self) -> None:
        """Note that a message was committed now; the time cannot be earlier later."""
        if not self.fault:
            self.committed(self._now() // SECOND)

    def check(self) -> bool:
        """Look at the clock; tell whether it has jumped since the last look."""
        running, offset = self._running(), self._now() - self._running()
        jumped = abs(offset - self._base_ns) > LARGEST_JUMP_NS
        if jumped:
            self._has_jumped(running)
        # Slow corrections add up to no jump, many small jumps do.
        if jumped or running - self._based_ns > _SPAN_NS:
            self._base_ns, self._based_ns = offset, running
        self._judge(running)
        return jumped

    def _has_jumped(self, running: int) -> None:
        """Note a jump, and the first whole minute, by the clock as it is now, that is not too early."""
        self._jumped_ns = running
        self._until_s = -(-(self._now() + self.steady_ns) // _MINUTE_NS) * 60

    def _judge(self, running: int) -> None:
        if self._now() < self._committed_ns - LARGEST_JUMP_NS:
            moment = utc_words(self._committed_ns // SECOND)
            self.fault = tr(
                f"the clock is behind the last message that was released, at {moment} UTC: set it right; "
                "if it is right and was ahead then, nothing leaves until that time, or stop the agent and "
                "run 'millgate agent new-epoch agent.toml'",
                f"时钟早于最近一次放行的时间（UTC {moment}）：请校正时钟；若时钟现已正确、当时偏快，"
                "则到该时间为止不放行任何数据，或停止代理程序后执行 'millgate agent new-epoch agent.toml'",
            )
        elif self._jumped_ns is not None and running - self._jumped_ns < self.steady_ns:
            span, until = duration_text(self.steady_ns), utc_words(self._until_s)
            self.fault = tr(
                f"the clock has jumped; it must go evenly for {span} first: until {until} UTC, unless it jumps "
                "again",
                f"时钟发生跳变；须先平稳运行 {span}：至 UTC {until}，除非再次跳变",
            )
        else:
            self.fault = ""
