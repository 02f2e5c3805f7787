"""The gate side: frames in, released slots out. Raw values exist only here."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agent.clock import ClockWatch
from agent.link import GateLink
from agent.released import Ended, Hello, Released, Restore
from agent.strange import Strange
from agent.suspended import Keeper, without
from protocols.errors import MillgateError
from protocols.frame import SECOND, Frame
from protocols.heap import give_back
from protocols.language import tr
from protocols.points import PointTable
from protocols.topics import Address
from security.policy.account import POLICY_ENDED, STOPPED
from security.policy.bundle import TrustedPolicy
from security.policy.compiled import Rule
from security.policy.gate import Gate, MemoryLost, open_memory, seal_memory
from security.secret import Secret

_FRAMES: Final = 64
_TICK_S: Final = 0.1
_MOST_TRIES: Final = 2

_log = logging.getLogger(__name__)


class OutOfTurn(MillgateError):
    """The sealed side said what it may not say now."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What may be enforced now.

    Attributes:
        policy: the policy; None while there is none.
        stopped: whether an officer has stopped it.
        halted: why nothing may leave for now although there is a policy; empty while it may.
        problem: why there is none.
        expired: whether its validity is over.
        unbroken: the policies from which readings may be taken over, by hash: those between whose
            end and this one there was no time in which nothing might leave; None for any.
    """

    policy: TrustedPolicy | None = None
    stopped: bool = False
    halted: str = ""
    problem: str = ""
    expired: bool = False
    unbroken: frozenset[bytes] | None = None

    @property
    def ended(self) -> Ended:
        """Whether the policy has ended, and how; an officer's word counts before the date."""
        if self.stopped:
            return Ended.STOPPED
        return Ended.EXPIRED if self.expired else Ended.NOT

    @property
    def key(self) -> tuple[bytes, Ended]:
        """What the sealed side is told of it."""
        return self.policy.hash if self.policy is not None else b"", self.ended


class GateSide:
    """Runs the gate and talks to the sealed side.

    Attributes:
        gate: the gate of the policy that is enforced; None before the first.
        frames: where collectors put frames, each with the table that it was read by; a full queue
            stops them.
        wanted: what is to be enforced.
        suspended: what leaves as missing until a person has looked.
        resumed: set when who tells only changes is to tell all once more: the gate takes frames again
            after a while in which it took none, or a new gate has taken over.
    """

    def __init__(
        self,
        make_gate: Callable[[TrustedPolicy], Gate],
        key: Secret[bytes],
        address: Address,
        clock: ClockWatch,
        suspended: Keeper | None = None,
    ) -> None:
        self.suspended = suspended or Keeper(None)
        self.gate: Gate | None = None
        self.frames: asyncio.Queue[tuple[Frame, PointTable]] = asyncio.Queue(_FRAMES)
        self.wanted = Verdict()
        self._enforced = Verdict()
        self._make_gate = make_gate
        self._key = key
        self._address = address
        self._clock = clock
        self._epoch = self._number = -1
        self._pending: Released | None = None
        self._tries = 0
        self._held: tuple[Frame, PointTable] | None = None
        self._room = asyncio.Event()
        self._closed = asyncio.Event()
        self._busy = True
        self._said = ""
        self._strange: Strange | None = None
        self._hidden: list[Rule] = []
        self._hidden_of: tuple[bytes, frozenset[str]] = (b"", frozenset())
        self._renew = asyncio.Event()
        self._renewed = asyncio.Event()
        self._was_out = False
        self.resumed = asyncio.Event()

    async def put(self, frame: Frame, table: PointTable) -> None:
        """Take a frame from a collector that reads by this table; waits while the gate is full."""
        await self.frames.put((frame, table))

    def want(self, verdict: Verdict) -> None:
        """Say what is to be enforced from now on; what halts the gate does so at once."""
        self.wanted = verdict
        self._halt()
        self._closed.set()

    async def renew(self) -> None:
        """Go over to a new gate, which goes on where the old one stands; waits until it is done."""
        self._renewed.clear()
        self._renew.set()
        self._closed.set()
        await self._renewed.wait()

    async def take_frames(self) -> None:
        """Feed the gate until cancelled."""
        while True:
            self._held = await self.frames.get()
            while self._busy or self.gate is None or self.gate.full:
                self._room.clear()
                await self._room.wait()
            self._feed_held()

    def _feed_held(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            self._feed(*held)

    def _feed(self, frame: Frame, table: PointTable) -> None:
        if self.gate is None or self._strange is None:
            return
        if self.gate.tables.get(frame.device) is not table:
            # The configuration has changed since it was read: its columns are other points now.
            _log.warning("%s", _read_before(frame.device))
            return
        # Before a frame is placed in time: one of a wrong hour must not open a slot there.
        self._look_at_clock()
        self._strange.take(frame)
        self.gate.feed(frame)
        if frame.clock is not None:
            # Such a device may bring many slots at once; they are closed before more come, so
            # that none is too far ahead of the oldest open one.
            self.gate.advance()
            if self.gate.has_closed:
                self._closed.set()

    async def tick(self) -> None:
        """Watch the clock and close slots as their time passes, until cancelled."""
        while True:
            await asyncio.sleep(_TICK_S)
            self.step()

    def step(self) -> None:
        """Watch the clock once, and close the slots whose time has passed."""
        gate = self.gate
        self._look_at_clock()
        if gate is None or self._busy:
            return
        self._say_when_force_changes(gate)
        if not gate.full and self._held is None:
            gate.advance()
        if gate.has_closed:
            self._closed.set()

    def _look_at_clock(self) -> None:
        if self._clock.check() and self.gate is not None:
            self.gate.drop_open()
        self._halt()

    def _halt(self) -> None:
        """Let nothing leave while the verdict or the clock says so."""
        if self.gate is not None:
            why = _ended(self._enforced.ended or self.wanted.ended)
            self.gate.halted = why or self.wanted.halted or self._clock.fault
            if self._was_out and self.gate.in_force:
                self.resumed.set()
            self._was_out = not self.gate.in_force

    async def converse(self, link: GateLink, stop: asyncio.Event) -> None:
        """Hand over closed slots, one message at a time, until `stop`; then once more.

        Raises:
            LinkLost: when the sealed side is gone; it goes on with the next link where this ended.
            Malformed, OutOfTurn: when the sealed side says what it may not.
        """
        await self._greet(link)
        while not stop.is_set():
            # Before anything is awaited: who wakes this side meanwhile must not be forgotten.
            self._closed.clear()
            if self._is_to_change():
                await self._change(link)
            if self.gate is not None and self.gate.has_closed:
                await self._hand_over(link)
            await link.silence(self._closed)
        self._drain_frames()
        await self._hand_over(link)

    def _is_to_change(self) -> bool:
        wanted = self.wanted
        # A clock that is not believed cannot tell that a validity is over.
        doubted = wanted.ended is Ended.EXPIRED and bool(self._clock.fault)
        other = wanted.key != self._enforced.key and wanted.policy is not None
        return (other and not doubted) or self._renew.is_set()

    def wake(self) -> None:
        """Look at once whether it is to stop."""
        self._closed.set()

    async def _greet(self, link: GateLink) -> None:
        """Say hello on a new link and go on from where the last committed message left off."""
        if self._enforced.policy is None:
            self._enforced = self.wanted
        answer = await self._hello(link)
        if self.gate is None or not self._goes_on(answer):
            self._begin(answer)
        self._take_place(answer)
        if self._pending is not None:
            await self._commit(link, self._pending)

    def _take_place(self, answer: Restore) -> None:
        self._number, self._epoch = answer.number, answer.epoch
        self._clock.committed(answer.at)
        self._open()

    async def _hello(self, link: GateLink) -> Restore:
        policy = self._policy()
        sheets = tuple(sheet.signed for sheet in policy.sheets)
        await link.send(Hello(policy.hash, sheets, self._enforced.ended))
        answer = await link.receive()
        if not isinstance(answer, Restore):
            raise OutOfTurn("the sealed side must answer Hello with Restore")
        return answer

    def _goes_on(self, answer: Restore) -> bool:
        """Tell whether the sealed side stands where this side does; then nothing is lost in memory.

        The message that was under way may have been committed or not.
        """
        if answer.epoch != self._epoch:
            return False
        pending = self._pending
        if pending is None:
            return answer.number == self._number
        if answer.number == pending.number:
            self._pending, self._tries = None, 0
            return True
        self._tries += 1
        return answer.number == pending.number - 1 and self._tries < _MOST_TRIES

    def _begin(self, answer: Restore) -> None:
        """Start a gate from the memory that the sealed side keeps."""
        self._pending, self._tries = None, 0
        if self.gate is None:
            policy = self._policy()
            self.gate = self._make_gate(policy)
            self._renew.clear()
            self._renewed.set()
            self._strange = Strange(policy.whole().rules, self.gate.tables)
            for line in self.gate.suspended:
                _log.warning("%s", line)
            give_back()
        else:
            self.gate.start_over()
        gate = self.gate
        if answer.memory:
            try:
                gate.restore(self._opened(answer))
            except MemoryLost as fault:
                _log.error("%s", fault)
            self._forget_what_is_over(gate, answer)
        self._halt()
        if self._number >= 0:
            # Memory knows of no value that it still holds, and who tells only changes does not say so.
            self.resumed.set()

    def _forget_what_is_over(self, gate: Gate, answer: Restore) -> None:
        """Let no reading from before a time in which nothing might leave count after it."""
        enforced = self._enforced
        if enforced.stopped:
            gate.forget(STOPPED)
        elif enforced.expired or answer.policy_hash not in (
            enforced.unbroken or {answer.policy_hash}
        ):
            gate.forget(POLICY_ENDED)

    def _opened(self, answer: Restore) -> bytes:
        return open_memory(
            answer.memory,
            self._key,
            self._address,
            answer.epoch,
            answer.policy_hash,
            answer.number,
        )

    def _open(self) -> None:
        """Let frames in."""
        self._busy = False
        self._room.set()

    async def _change(self, link: GateLink) -> None:
        """Enforce what is wanted; what was released before leaves before."""
        wanted = self.wanted if self.wanted.policy is not None else self._enforced
        # What comes while the last message is under way waits for the new gate.
        self._busy = True
        self._drain_frames()
        await self._hand_over(link)
        self._busy, self.gate, self._enforced = True, None, wanted
        answer = await self._hello(link)
        self._begin(answer)
        self._take_place(answer)
        if wanted.ended:
            # So that a later policy cannot take up from before the end.
            await self._hand_over(link)

    def _policy(self) -> TrustedPolicy:
        policy = self._enforced.policy
        if policy is None:
            raise OutOfTurn("nothing is enforced yet")
        return policy

    def _say_when_force_changes(self, gate: Gate) -> None:
        over = _ended(Ended.EXPIRED) if gate.has_expired else _not_yet()
        why = "" if gate.in_force else gate.halted or over
        if why == self._said:
            return
        self._said = why
        if why:
            _log.error("%s", tr(f"nothing leaves: {why}", f"不放行任何数据：{why}"))
        else:
            _log.warning("%s", tr("the policy is in force", "策略已生效"))

    def _drain_frames(self) -> None:
        self._feed_held()
        while not self.frames.empty() and self.gate is not None:
            self._feed(*self.frames.get_nowait())
        self._look_at_clock()
        if self.gate is not None:
            self.gate.advance()

    async def _hand_over(self, link: GateLink) -> None:
        gate, policy_hash = self.gate, self._policy().hash
        if gate is None:
            raise OutOfTurn("nothing is enforced yet")
        self._look_at_clock()
        # With as few open slots as there can be: each of them makes the memory larger. But a frame that
        # waits for room belongs in slots that are over by now.
        if self._held is None:
            gate.advance()
        streams, memory = gate.take(), gate.memory()
        await self._suspend(gate)
        streams = without(streams, self.suspended.now, self._suspended_rules())
        number = self._number + 1
        sealed = await asyncio.to_thread(
            seal_memory, memory, self._key, self._address, self._epoch, policy_hash, number
        )
        self._room.set()
        await self._commit(link, Released(number, policy_hash, streams, sealed))

    def _suspended_rules(self) -> list[Rule]:
        """Return the rules of the points that are suspended; the policy itself rests packed."""
        policy, points = self._policy(), self.suspended.now.points
        key = policy.hash, frozenset(points)
        if points and key != self._hidden_of:
            self._hidden = [rule for rule in policy.whole().rules if rule.source in points]
            self._hidden_of = key
        return self._hidden if points else []

    async def _suspend(self, gate: Gate) -> None:
        """Suspend what failed too often, before anything of this message leaves."""
        now_ns = time.time_ns()
        faults, gate.faulty = gate.faulty, []
        strange = self._strange.names(now_ns) if self._strange is not None else []
        if not (faults or strange):
            return
        new = await asyncio.to_thread(self.suspended.note, faults, strange, now_ns // SECOND)
        for name in new:
            _log.error("%s", suspended_line(name))

    async def _commit(self, link: GateLink, message: Released) -> None:
        self._pending = message
        await link.send(message)
        answer = await link.receive()
        if isinstance(answer, Restore):
            # A new epoch: the message was not kept, and counters need new baselines.
            self._begin(answer)
            self._take_place(answer)
            return
        if answer.number != message.number:
            raise OutOfTurn("the sealed side must answer Released with its Committed")
        self._number, self._pending, self._tries = message.number, None, 0
        self._clock.released()


def suspended_line(name: str) -> str:
    """Return what a person reads about something that is suspended."""
    return tr(
        f"{name}: suspended, it leaves as missing; its readings are not what was signed, or the gate "
        f"failed twice in a day; look at it, then 'millgate agent acknowledge agent.toml {name}'",
        f"{name}：已挂起，按缺失外发；其读数与签署内容不符，或闸门一天内两次故障；"
        f"请检查后执行 'millgate agent acknowledge agent.toml {name}'",
    )


def _read_before(device: str) -> str:
    return tr(
        f"{device}: what was read before its configuration changed is not used",
        f"{device}：配置更改前读取的数据不再使用",
    )


def _not_yet() -> str:
    return tr("the policy is not yet valid", "策略尚未生效")


def _ended(how: Ended) -> str:
    """Return in words that a policy has ended; empty where it has not."""
    if how is Ended.STOPPED:
        return tr("an officer has stopped it", "数据官已下令停止")
    if how is Ended.EXPIRED:
        return tr("the policy has expired; sign a new one", "策略已过期；请签署新策略")
    return ""
