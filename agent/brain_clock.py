"""How far our wall clock is from the brain's, by the times that its signed answers carry.

An answer is signed after the question, or the message it is about, was sent, and before the answer came: so
the brain's clock showed its time within that stretch. The narrowest of many stretches tells most, and none
is believed to be shorter than it was: an answer that waited long tells little, and nothing wrong. It is shown
and told, and nothing else depends on it.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Final

from protocols.frame import SECOND, NowNs
from protocols.language import tr
from protocols.running import running_ns

TOLERATED_S: Final = 60
"""A larger difference is told; the brain tells of the same."""

_SPAN_NS: Final = 600 * SECOND
_MOST_SENT: Final = 1024


@dataclass(slots=True)
class _Stretch:
    """Between what the brain's clock is ahead of the machine's running time, ns; and when that was found."""

    low: int
    high: int
    began_ns: int
    at_ns: int


class BrainClock:
    """The clocks of all brains that answer, each by the key id of its receipt key.

    Args:
        now_ns: our wall clock.
        running: the machine's running time, ns; nobody sets it, so a wall clock that jumps shows at once.
    """

    def __init__(
        self, now_ns: NowNs = time.time_ns, running: Callable[[], int] = running_ns
    ) -> None:
        self._now = now_ns
        self._running = running
        self._sent: OrderedDict[Hashable, int] = OrderedDict()
        self._found: dict[bytes, _Stretch] = {}
        self._said = False

    def sent(self, what: Hashable) -> None:
        """Note that something was sent that is answered; the first time counts."""
        self._sent.setdefault(what, self._running())
        if len(self._sent) > _MOST_SENT:
            self._sent.popitem(last=False)

    def answered(self, what: Hashable, kid: bytes, issued_s: int) -> None:
        """Take the time that a brain put on its answer to what was sent; of other answers nothing is known."""
        sent_ns = self._sent.get(what)
        if sent_ns is None:
            return
        now_ns = self._running()
        low, high = issued_s * SECOND - now_ns, (issued_s + 1) * SECOND - sent_ns
        known = self._found.get(kid)
        if known is None or high < known.low or known.high < low:
            # The first, or the brain's clock was set meanwhile.
            self._found[kid] = _Stretch(low, high, now_ns, now_ns)
            return
        if now_ns - known.began_ns > _SPAN_NS and high - low < _SPAN_NS:
            # Clocks drift: what was found long ago holds no more to the second.
            self._found[kid] = _Stretch(low, high, now_ns, now_ns)
            return
        known.low, known.high, known.at_ns = max(known.low, low), min(known.high, high), now_ns

    def _ahead(self) -> tuple[float, float, float] | None:
        """Return by how much we are ahead of the brain that differs most, give or take, and the age; seconds."""
        offset, now_ns = self._now() - self._running(), self._running()
        found = [
            (
                (offset - (one.low + one.high) / 2) / SECOND,
                (one.high - one.low) / 2 / SECOND,
                (now_ns - one.at_ns) / SECOND,
            )
            for one in self._found.values()
        ]
        return max(found, key=lambda one: abs(one[0]) - one[1], default=None)

    def line(self) -> str:
        """Return what a person should know; empty while the clocks agree, as far as can be told."""
        found = self._ahead()
        if found is None or abs(found[0]) - found[1] <= TOLERATED_S:
            return ""
        seconds = round(abs(found[0]))
        return tr(
            f"this machine's clock is {seconds} s {'ahead of' if found[0] > 0 else 'behind'} the brain's: set "
            "right the one that is wrong, and let chrony or systemd-timesyncd keep both",
            f"本机时钟比产业大脑{'快' if found[0] > 0 else '慢'} {seconds} 秒：请校正有误的一方，"
            "并由 chrony 或 systemd-timesyncd 保持同步",
        )

    def news(self) -> str | None:
        """Return the line when it begins to hold, an empty one when it no longer does; else None."""
        line = self.line()
        if bool(line) == self._said:
            return None
        self._said = bool(line)
        return line

    def report(self) -> dict[str, Any] | None:
        """Return what `agent status` shows; None while no brain has answered."""
        found = self._ahead()
        if found is None:
            return None
        ahead_s, within_s, age_s = (round(one, 1) for one in found)
        return {"ahead_s": ahead_s, "within_s": within_s, "age_s": age_s, "line": self.line()}
