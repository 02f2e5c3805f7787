"""Asks the brain how far it has our chains, before anything is sent and whenever it hints.

Nothing is sent in a brain's streams before its first answer: an agent restored from an old copy would
write other messages for places that the brain has filled already, which looks like fraud. Where a policy
has several brains, each clears its own streams. Rule and reasons: docs/decisions/0064.
"""

import logging
import os
import random
from collections.abc import Collection, Mapping
from typing import Final

from agent.chains import Missing, Verdict, compare, keep_proof
from agent.spool import Spool
from protocols.frame import SECOND, NowNs
from protocols.language import tr
from protocols.topics import Address
from security.answers import NO_LOG, Log, Standing
from security.keys import Signer
from security.statements import NONCE_BYTES, RUN_BYTES, Ask, Loss, sign_statement
from security.transparency import NotProven, check_consistency

_FIRST_S: Final = 2.0
_LONGEST_S: Final = 60.0
_HINT_S: Final = 10.0

_log = logging.getLogger(__name__)


class Asker:
    """One agent's questions; times are seconds of one steady clock."""

    def __init__(
        self,
        spool: Spool,
        address: Address,
        signer: Signer,
        streams: Mapping[bytes, Collection[int]],
        now_ns: NowNs,
    ) -> None:
        self._quarantines: set[bytes] = set()
        self._cleared: set[bytes] = set()
        self._spool = spool
        self._address = address
        self._signer = signer
        self._streams = streams
        self._now = now_ns
        self._run = os.urandom(RUN_BYTES)
        self._nonce = b""
        self._unanswered: set[bytes] = set()
        self._wait_s = _FIRST_S
        self._next_s = 0.0
        self._hint_s = 0.0

    @property
    def quarantined(self) -> bool:
        """Whether a brain takes nothing from us until a person has looked, or for good."""
        return bool(self._quarantines)

    @property
    def begun(self) -> bool:
        """Whether a brain has answered, so that messages may be sent; but see `held`."""
        return bool(self._cleared)

    @property
    def cleared(self) -> bool:
        """Whether every brain has answered."""
        return self.begun and self._cleared >= self._streams.keys()

    @property
    def held(self) -> frozenset[int]:
        """The streams of brains that have not answered: nothing is sent in them."""
        waiting = [streams for kid, streams in self._streams.items() if kid not in self._cleared]
        return frozenset().union(*waiting)

    def may_speak(self, kid: bytes, stream: int) -> bool:
        """Tell whether a brain's word on a stream counts: not where the stream is another brain's."""
        own = stream in self._streams.get(kid, ())
        return own or not any(stream in streams for streams in self._streams.values())

    @property
    def nonce(self) -> bytes:
        """The question that is not answered yet; empty where there is none."""
        return self._nonce

    def left_s(self, now: float) -> float | None:
        """Return how long to wait before asking (again); None when there is nothing to ask."""
        if self.cleared and not self._nonce:
            return None
        return max(self._next_s - now, 0.0)

    def hinted(self, now: float, standing: Standing, kid: bytes) -> bool:
        """Tell whether a hint of a brain is followed: at most one in a while.

        A brain that is still to answer needs none. One that has answered is heard all the same while
        another is away; what repeats its answer is no hint.
        """
        repeats = bool(self._nonce) and standing.nonce == self._nonce
        if kid in self._unanswered or repeats or now < self._hint_s:
            return False
        self._hint_s = now + _HINT_S
        self._wait_s, self._next_s, self._nonce = _FIRST_S, now, self._new_nonce()
        self._unanswered = set(self._streams)
        return True

    def again(self, now: float) -> None:
        """Ask once more before anything else is sent: what is here has changed."""
        self._cleared.clear()
        self._wait_s, self._next_s, self._nonce = _FIRST_S, now, self._new_nonce()
        self._unanswered = set(self._streams)

    def reconnected(self, now: float) -> None:
        """Ask at once what is not answered yet: what was asked on another connection may be lost."""
        self._wait_s, self._next_s = _FIRST_S, min(self._next_s, now)

    def ask(self, now: float) -> bytes:
        """Return a signed question, and note when it is due again."""
        if not self._nonce:
            self._nonce = self._new_nonce()
            self._unanswered = set(self._streams)
        jitter = random.uniform(0.8, 1.2)  # noqa: S311 - jitter, so that agents do not ask in step
        self._next_s = now + self._wait_s * jitter
        self._wait_s = min(2 * self._wait_s, _LONGEST_S)
        logs = tuple((kid, self._known_log(kid).size) for kid in sorted(self._streams))
        question = Ask(self._address, self._now() // SECOND, self._nonce, logs)
        return sign_statement(question, self._signer)

    def _new_nonce(self) -> bytes:
        """Its beginning tells the brain whether it is still this run of the agent that asks."""
        return self._run + os.urandom(NONCE_BYTES - RUN_BYTES)

    def take(self, standing: Standing, kid: bytes, signed: bytes) -> Verdict | None:
        """Take a brain's answer; None when it is not the answer to our question.

        Args:
            standing: the answer, verified.
            kid: key id of the receipt key that signed it.
            signed: its bytes.
        """
        self._note_quarantine(kid, quarantined=standing.quarantined)
        self._spool.attested(kid, standing.attested, self._streams.keys())
        if standing.nonce != self._nonce or kid not in self._unanswered:
            return None
        self._unanswered.discard(kid)
        self._check_log(standing, kid, signed)
        verdict = compare(
            self._spool, self._address, standing.epoch, standing.heads, self._streams[kid]
        )
        self._say(verdict)
        if not self._unanswered:
            self._nonce, self._wait_s = b"", _FIRST_S
        # Sending goes on in the new epoch; the sealer begins it with its next message.
        self._cleared.add(kid)
        return verdict

    def losses(self, missing: list[Missing]) -> list[bytes]:
        """Return the signed declarations of what the brain lacks and we no longer have."""
        now_s = self._now() // SECOND
        return [
            sign_statement(
                Loss(
                    self._address,
                    now_s,
                    one.epoch,
                    one.stream,
                    one.first,
                    one.last,
                    one.digest,
                    one.reason,
                ),
                self._signer,
            )
            for one in missing
        ]

    def _known_log(self, kid: bytes) -> Log:
        size = self._spool.meta(f"log_size:{kid.hex()}", NO_LOG.size)
        return Log(size, self._spool.meta(f"log_root:{kid.hex()}", NO_LOG.root))

    def _check_log(self, standing: Standing, kid: bytes, signed: bytes) -> None:
        known, name = self._known_log(kid), kid.hex()
        try:
            check_consistency(
                known.size, known.root, standing.log.size, standing.log.root, standing.proof
            )
        except NotProven:
            first = self._spool.meta(f"log_signed:{name}", b"")
            keep_proof(self._spool, "log", self._now() // SECOND, first, signed)
            _log.error(
                "%s",
                tr(
                    f"the brain's log is not the one it showed before: it had {known.size} entries, "
                    f"now it shows {standing.log.size} that do not continue them; it was restored "
                    "from an old copy, or rewritten; both signed statements are kept as proof",
                    f"产业大脑的日志与此前出示的不一致：原有 {known.size} 条，现出示 "
                    f"{standing.log.size} 条且不承接原日志；可能由旧备份恢复，或被改写；"
                    "两份签名声明均已留作证据",
                ),
            )
        self._spool.set_meta(
            {
                f"log_size:{name}": standing.log.size,
                f"log_root:{name}": standing.log.root,
                f"log_signed:{name}": signed,
            }
        )

    def _say(self, verdict: Verdict) -> None:
        if verdict.forked:
            _log.error(
                "%s",
                tr(
                    "the brain has messages of ours that this spool does not know: the spool is an "
                    "old copy, or was lost; a new epoch begins, counters start from new baselines, "
                    "what waited for this brain is declared lost",
                    "产业大脑已有本缓存库不知道的消息：缓存库是旧副本，或曾丢失；将开启新纪元，"
                    "计数器从新基线开始，等待发往该产业大脑的数据声明为丢失",
                ),
            )
        if verdict.void:
            _log.error(
                "%s",
                tr(
                    "this brain, which answers only now, has messages of ours from an epoch before that "
                    "this spool does not know; what waited for it in that epoch, and the first message "
                    "of the next, are lost and declared; what follows goes to it",
                    "该产业大脑现在才应答，其已有以前纪元中本缓存库不知道的消息；该纪元中等待发往它的数据"
                    "及下一纪元的首条消息丢失并声明，其后的数据照常发送",
                ),
            )
        if verdict.again or verdict.missing:
            lost = sum(one.last - one.first + 1 for one in verdict.missing)
            _log.warning(
                "%s",
                tr(
                    f"the brain has less than it acknowledged, it was restored from an old copy: "
                    f"{verdict.again} message(s) are sent again from the archive, {lost} are no "
                    "longer there and are declared lost",
                    f"产业大脑的数据少于其已确认的，应是由旧备份恢复：从归档重发 {verdict.again} 条消息，"
                    f"另有 {lost} 条已不在归档，声明为丢失",
                ),
            )

    def _note_quarantine(self, kid: bytes, *, quarantined: bool) -> None:
        if not quarantined:
            self._quarantines.discard(kid)
            return
        if kid not in self._quarantines:
            _log.error(
                "%s",
                tr(
                    "the brain takes nothing more from this agent: it was revoked there, or two different "
                    "messages were signed for one place of our chain (is there a copy of this agent?); its "
                    "operator knows which; our data waits in the spool",
                    "产业大脑不再接收本代理程序的任何内容：已在该处被吊销，或本代理链上同一位置签署了两条不同消息"
                    "（是否存在本代理的副本？）；其管理员知道属于哪一种；数据在缓存中等待",
                ),
            )
        self._quarantines.add(kid)
