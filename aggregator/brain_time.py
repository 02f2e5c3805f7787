"""Whether the brain's own clock may be believed where believing it cannot be undone.

What retention ends is deleted for good. A clock that was set years ahead would end it all at once. So the clock
counts there only where an agent signed about the same time lately, or, where none speaks, where it has gone on
evenly for a week. Agents cannot hasten anything by this: the brain's clock must have come there as well.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from protocols.frame import SECOND, NowNs
from protocols.language import tr
from protocols.moments import utc_words
from protocols.running import boot_id, running_ns
from security.files import write_whole

CLOSE_S: Final = 3600
"""An agent's word this far from the brain's clock, or nearer, confirms it."""

EVEN_S: Final = 7 * 86_400
"""Where no agent speaks, the clock must have gone evenly for so long."""

_DAY_NS: Final = 86_400 * SECOND
_FRESH_NS: Final = 900 * SECOND
_EXACT_S: Final = 120


@dataclass(frozen=True, slots=True)
class _Kept:
    """What is remembered over restarts.

    Attributes:
        at_s: when the clock was looked at last, by itself.
        since_s: since when it has gone evenly.
        agreed: when the machine was started by an agent's word, and the running time at which it came, ns.
    """

    at_s: int = 0
    since_s: int = 0
    agreed: tuple[int, int] | None = None


class BrainTime:
    """Holds the brain's clock against what agents sign, and against how it went before.

    The inbox's thread notes, others ask; each word is one assignment.

    Args:
        path: file of when the clock was looked at last, and of when an agent confirmed it; beside the
            ledger.
        now_ns: the wall clock.
        running: the machine's running time, ns.
        boot: what names this start of the machine; empty where that is not to be seen.
    """

    def __init__(
        self,
        path: Path,
        now_ns: NowNs = time.time_ns,
        running: Callable[[], int] = running_ns,
        boot: Callable[[], str] = boot_id,
    ) -> None:
        self._path = path
        self._now = now_ns
        self._running = running
        self._boot = boot()
        self._agreed = self._kept().agreed
        self._newest: tuple[int, int] | None = None
        self._looked: tuple[int, int] | None = None
        self._doubted_s: int | None = None

    def signed(self, issued_s: int) -> None:
        """Note that an agent's message came, and when the agent says that it signed it."""
        running = self._running()
        word = issued_s * SECOND - running
        if abs(self._ours() - word) <= CLOSE_S * SECOND:
            self._agreed = word, running
        newest = self._newest
        # A message may be old for good reasons: the newest word of a while counts.
        if newest is None or word >= newest[0] or running - newest[1] > _FRESH_NS:
            self._newest = word, running

    def _ours(self) -> int:
        return self._now() - self._running()

    def is_confirmed(self) -> bool:
        """Tell whether within a day some agent signed about the time that our clock makes of it."""
        agreed = self._agreed
        if agreed is None or self._running() - agreed[1] > _DAY_NS:
            return False
        return abs(self._ours() - agreed[0]) <= CLOSE_S * SECOND

    def is_exact(self) -> bool:
        """Tell whether what agents signed in the last quarter of an hour is the time by our clock."""
        newest = self._newest
        if newest is None or self._running() - newest[1] > _FRESH_NS:
            return False
        return abs(self._ours() - newest[0]) <= _EXACT_S * SECOND

    def ahead_s(self) -> int:
        """Return by how many seconds the clock is ahead of all that agents sign; 0 while it is not."""
        newest = self._newest
        if newest is None or self._running() - newest[1] > _FRESH_NS or self.is_confirmed():
            return 0
        ahead_s = (self._ours() - newest[0]) // SECOND
        return ahead_s if ahead_s > CLOSE_S else 0

    def doubt(self) -> str:
        """Return why nothing may be erased by the clock now, since when and until when; empty where it may.

        Call it now and then.

        Raises:
            OSError: when the file cannot be written.
        """
        even_s = self._even_s()
        newest = self._newest
        spoke = newest is not None and self._running() - newest[1] <= _DAY_NS
        if self.is_confirmed() or (even_s >= EVEN_S and not spoke):
            self._doubted_s = None
            return ""
        now_s = self._now() // SECOND
        if self._doubted_s is None:
            self._doubted_s = now_s
        return _doubt(self._doubted_s, None if spoke else now_s - even_s + EVEN_S)

    def _even_s(self) -> int:
        """Return for how long the clock has gone on from where it was, also over restarts."""
        now_s, running = self._now() // SECOND, self._running()
        kept = self._kept()
        if self._looked is None:
            even = kept.at_s <= now_s <= kept.at_s + _DAY_NS // SECOND
        else:
            due_s = self._looked[0] + (running - self._looked[1]) // SECOND
            even = abs(now_s - due_s) <= CLOSE_S
        since_s = kept.since_s if even else now_s
        self._looked = now_s, running
        self._write(_Kept(now_s, since_s, self._agreed))
        return now_s - since_s

    def keep(self) -> None:
        """Write down when an agent confirmed the clock, so that the next process need not wait for one.

        Raises:
            OSError: when the file cannot be written.
        """
        kept = self._kept()
        if self._boot and self._agreed != kept.agreed:
            self._write(replace(kept, agreed=self._agreed))

    def _write(self, kept: _Kept) -> None:
        content = {"at": kept.at_s, "since": kept.since_s}
        confirmed = {"boot": self._boot, "agreed": kept.agreed} if self._boot else {}
        write_whole(self._path, json.dumps(content | confirmed).encode())

    def _kept(self) -> _Kept:
        """Return what the file says; a missing or damaged one begins anew.

        When an agent confirmed the clock, is told in running time, which begins anew with the machine.
        """
        try:
            found = json.loads(self._path.read_text("utf-8"))
            kept = _Kept(int(found["at"]), int(found["since"]))
            agreed = found.get("agreed")
            if agreed is None or not self._boot or found["boot"] != self._boot:
                return kept
            word, running = map(int, agreed)
            return replace(kept, agreed=(word, running)) if running <= self._running() else kept
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return _Kept()


def _doubt(since_s: int, until_s: int | None) -> str:
    """Say why nothing is erased; `until_s` is None where agents speak, but of another time."""
    since = utc_words(since_s)
    if until_s is None:
        return tr(
            f"since {since}Z nothing is erased although retention may have ended: no agent signs the time that "
            "the brain's clock shows; set it right",
            f"自 {since}Z 起，即使保存期限已到也不删除：没有代理程序签署的时间与产业大脑的时钟相符；请校正时钟",
        )
    until = utc_words(until_s)
    return tr(
        f"since {since}Z nothing is erased although retention may have ended: no agent has confirmed the brain's "
        f"clock since it was started; it goes on with the first message of one, without any at {until}Z, when "
        "the clock will have gone evenly for a week",
        f"自 {since}Z 起，即使保存期限已到也不删除：启动以来尚无代理程序印证产业大脑的时钟；"
        f"收到任一代理程序的消息即继续，若一直没有，则至 {until}Z 时钟平稳运行满一周后继续",
    )
