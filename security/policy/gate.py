"""The gate: applies the compiled policy to frames. What is not released ends here.

Everything the gate knows lives in this process's memory and in the *gate memory*: encrypted under
a key that only the gate holds, of constant size, and bound to agent, epoch, policy and number.
"""

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import cbor2
import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from protocols import strict_cbor
from protocols.batch import Block
from protocols.errors import MillgateError
from protocols.frame import SECOND, Frame, NowNs, lost_frame
from protocols.language import tr
from protocols.points import PointTable
from protocols.strict_cbor import Malformed
from protocols.topics import Address
from security.policy.account import GATE_ERROR, RULE_CHANGED, STOPPED, Account
from security.policy.budget import Budgets
from security.policy.compiled import CompiledPolicy, Rule
from security.policy.derived import Derived, Output
from security.policy.lane import FURTHEST_AHEAD_NS, Lane
from security.policy.packed import PackedPolicy
from security.policy.sources import columns_of, no_device, transform
from security.secret import Secret

LATENESS_NS: Final = 1_500_000_000
"""How long after its end a slot stays open for what is still on its way."""

_LONGEST_PAUSE_NS: Final = 60 * SECOND
_REPEAT_NS: Final = 60 * SECOND
_MOST_WAITING_CELLS: Final = 2_000_000
_NONCE: Final = 12
_MOST_MEMORY: Final = 256 << 20
_MEMORY_DEPTH: Final = 12
_MEMORY_VERSION: Final = 2
_READ_VERSIONS: Final = (1, 2)
_PAGE: Final = 4096
_PER_LANE: Final = 4096

_log = logging.getLogger(__name__)


class MemoryLost(MillgateError):
    """The gate memory cannot be opened; counters start from new baselines."""


class Gate:
    """Applies one policy to the devices of one agent.

    Attributes:
        suspended: what is wrong with each rule whose source is not what was signed; local only.
        accounts: the account of each device.
        halted: why nothing may leave although the policy is valid; empty while it may.
        faulty: the stream of each fault that dropped a window; who takes them empties it.
    """

    def __init__(
        self,
        policy: CompiledPolicy | PackedPolicy,
        tables: Mapping[str, PointTable],
        now_ns: NowNs,
        key: Secret[bytes] | None = None,
    ) -> None:
        """Make a gate.

        Args:
            policy: what it applies; of a packed one, its rules rest packed.
            tables: the devices' points.
            now_ns: the wall clock.
            key: the gate's own key, for pseudonyms; without it no pseudonym leaves.
        """
        self._policy = policy
        self._head = policy.head if isinstance(policy, PackedPolicy) else policy
        self._key = key
        self._now = now_ns
        self._tables = dict(tables)
        self._watched_ns: int | None = None
        # The devices of which something may have come since, and was not used.
        self._missed: set[str] = set()
        self._said_ns: dict[str, int] = {}
        self.halted = ""
        self.faulty: list[int] = []
        self._begin()
        self._memory_size = self._constant_size()

    def start_over(self) -> None:
        """Forget every sample and baseline: a new epoch begins."""
        self._begin()

    def _begin(self) -> None:
        """Start with nothing: no sample, no baseline."""
        self.suspended: list[str] = []
        self.accounts = {device: Account() for device in self._tables}
        self._clock: dict[str, int] = {}
        self._released = {
            device: np.zeros(len(table.points), np.bool_) for device, table in self._tables.items()
        }
        policy = self.whole()
        self._lanes = self._make_lanes(policy.rules)
        self._derived = Derived(policy, self._tables, self.suspended)
        self._budgets = Budgets(policy)

    def whole(self) -> CompiledPolicy:
        """Return what it applies; of a packed policy this takes a moment for each thousand rules."""
        policy = self._policy
        return policy.whole() if isinstance(policy, PackedPolicy) else policy

    def change_terms(self, policy: CompiledPolicy) -> None:
        """Apply other terms at once, and other rules from the next beginning on."""
        self._policy = self._head = policy

    @property
    def tables(self) -> Mapping[str, PointTable]:
        """The devices' points."""
        return self._tables

    @property
    def in_force(self) -> bool:
        """Whether the policy is valid now and not stopped, and nothing halts the gate."""
        if self.halted or self._head.stopped:
            return False
        return self._head.valid_from <= self._now() // 10**9 < self._head.valid_until

    @property
    def has_expired(self) -> bool:
        """Whether the policy's validity is over."""
        return self._now() // SECOND >= self._head.valid_until

    def released_points(self, device: str) -> "np.ndarray[Any, np.dtype[np.bool_]]":
        """Return shape (n,): which points of the device some rule releases; local only."""
        return self._released[device]

    def feed(self, frame: Frame) -> None:
        """Take a frame. Never raises: a fault drops the windows of the points concerned."""
        account, samples = self.accounts[frame.device], frame.samples
        account.produced += samples
        now_ns = self._now()
        counted = 0
        if not self.in_force:
            self._missed.add(frame.device)
        else:
            if self._missed or now_ns - (self._watched_ns or now_ns) >= _LONGEST_PAUSE_NS:
                # Slots that are over are closed first: what is told now was not seen to hold in them.
                self.advance()
            for lane in self._lanes[frame.device]:
                taken = self._guarded(lane, frame, now_ns)
                counted += 0 if lane.rank else taken
            for lane in self._derived.lanes.get(frame.device, []):
                self._guarded(lane, frame, now_ns)
        account.withheld += samples - counted
        # A device's clock that cannot be true would close every slot up to it for good.
        if frame.clock is not None and frame.clock <= now_ns + FURTHEST_AHEAD_NS:
            self._clock[frame.device] = max(frame.clock, self._clock.get(frame.device, 0))

    def advance(self) -> None:
        """Close every slot whose time has passed, while the policy is in force.

        Outside of its validity nothing leaves anyway; so a clock that is wrong by years does not
        use up the slots of these years.
        """
        if not self.in_force:
            return
        now_ns = self._now()
        self._notice_pause(now_ns)
        for lane in self._all_lanes():
            if lane.cursor is None and not lane.table.brings_time:
                lane.start(now_ns)
        self._derived.begin()
        for device in self._lanes:
            lanes = [*self._lanes[device], *self._derived.lanes.get(device, [])]
            own_time = self._tables[device].brings_time
            until_ns = self._clock.get(device) if own_time else now_ns - LATENESS_NS
            if until_ns is None:
                continue
            for lane in lanes:
                try:
                    lane.advance(until_ns)
                except Exception as error:  # noqa: BLE001 - fail closed: any fault drops the window
                    self._drop(lane, error)
        try:
            self._derived.compute()
        except Exception as error:  # noqa: BLE001 - same
            self._derived.forget()
            self._tell("derived", error)

    def _notice_pause(self, now_ns: int) -> None:
        """Where nobody looked for long, or what came could not be used, no value holds on unseen."""
        since_ns, self._watched_ns = self._watched_ns, now_ns
        missed, self._missed = self._missed, set()
        if since_ns is None:
            return
        paused = now_ns - since_ns >= _LONGEST_PAUSE_NS
        for device, table in self._tables.items():
            told_once = table.hold_ns is None and not table.brings_time
            if told_once and (paused or device in missed):
                self.feed(lost_frame(device, table.columns(), since_ns))

    @property
    def full(self) -> bool:
        """Whether so much is closed and not taken that no more frames should come."""
        waiting = sum(len(lane.waiting) * len(lane.numbers) for lane in self._all_lanes())
        return waiting >= _MOST_WAITING_CELLS

    @property
    def has_closed(self) -> bool:
        """Whether something may be taken, or was closed that no committed memory knows yet."""
        if any(one.waiting.fresh for one in self._waiting_places()):
            return True
        now_ns = self._now()
        return self.in_force and any(one.waiting.has_due(now_ns) for one in self._outlets())

    def take(self) -> dict[int, list[Block]]:
        """Return the closed slots of every stream, and forget them.

        While nothing may leave they wait: a counter's rise would be gone for good. What must not leave
        afterwards either is forgotten with the readings, see `forget`.
        """
        streams: dict[int, list[Block]] = {}
        now_ns = self._now()
        for one in self._outlets() if self.in_force else ():
            blocks = one.drain(now_ns)
            if blocks:
                blocks = self._budgets.allow(one.stream, blocks, now_ns // SECOND)
                streams.setdefault(one.stream, []).extend(blocks)
        for place in self._waiting_places():
            place.waiting.fresh = False
        return {stream: blocks for stream, blocks in streams.items() if blocks}

    @property
    def exceeded(self) -> set[str]:
        """Ids of the consumers whose leak budget of today is spent; local only."""
        return self._budgets.exceeded

    def memory(self) -> bytes:
        """Return what must survive a crash, of constant size for this policy.

        It doubles only where very many slots, or changes of states, are open at once; it never
        leaves the factory.
        """
        content = cbor2.dumps(self._content(), canonical=True)
        size = self._memory_size
        while size < len(content) + 4:
            size *= 2
        return len(content).to_bytes(4, "big") + content.ljust(size - 4, b"\0")

    def _content(self) -> dict[str, Any]:
        return {
            "version": _MEMORY_VERSION,
            "clocks": dict(sorted(self._clock.items())),
            "accounts": {device: book.as_dict() for device, book in self.accounts.items()},
            "lanes": [[lane.name, lane.memory()] for lane in self._all_lanes()],
            "derived": self._derived.dump(),
            "budgets": self._budgets.dump(),
        }

    def forget(self, why: str = STOPPED) -> None:
        """Forget every reading: after the end of a policy nothing from before it leaves any more.

        Counters take new baselines, so that no later rise covers the time in which nothing might
        leave. The account, where open samples become dropped for `why`, and the place in time
        stay: no slot is written twice.
        """
        content = _without_readings(self._content())
        self._begin()
        self._take_over(content, why)

    def drop_open(self) -> None:
        """Drop what open windows hold; their slots become gaps, counters go on exactly."""
        for lane in self._all_lanes():
            lane.lose_open()

    def restore(self, memory: bytes) -> None:
        """Take over what `memory` gave, for all points whose rule is still the same.

        Raises:
            MemoryLost: when it is not that; nothing of it is taken over then.
        """
        self._missed.update(self._tables)
        try:
            self._take_over(_memory_content(memory))
        except Exception:  # noqa: BLE001 - raised anew below: whatever is wrong with it, it is lost
            self._begin()
            raise MemoryLost(
                tr(
                    "gate memory is damaged, or of another version",
                    "闸门记忆已损坏，或版本不符",
                ),
                remedy=tr("counters start from new baselines", "计数器将从新基线开始"),
            ) from None

    def _take_over(self, content: dict[str, Any], why_lost: str = RULE_CHANGED) -> None:
        if self._head.stopped:
            content, why_lost = _without_readings(content), STOPPED
        self._clock.update(content["clocks"])
        by_name = dict(content["lanes"])
        for lane in self._all_lanes():
            if lane.name in by_name:
                lane.restore(by_name[lane.name])
        self._derived.load(content.get("derived", []))
        self._budgets.load(content.get("budgets", []))
        for device, numbers in content["accounts"].items():
            if device in self.accounts:
                self._restore_account(device, numbers, why_lost)

    def _restore_account(self, device: str, numbers: dict[str, Any], why_lost: str) -> None:
        """Fill the account in place, since the lanes hold it too."""
        book, old = self.accounts[device], Account.from_dict(numbers)
        book.produced, book.withheld, book.consumed = old.produced, old.withheld, old.consumed
        book.open = sum(
            sum(lane.open_counts.values()) for lane in self._lanes[device] if not lane.rank
        )
        book.dropped = old.dropped
        if old.open != book.open:
            book.dropped[why_lost] += old.open - book.open

    def _guarded(self, lane: Lane, frame: Frame, now_ns: int) -> int:
        book = lane.account
        before = book.placed
        try:
            return lane.feed(frame, now_ns)
        except Exception as error:  # noqa: BLE001 - fail closed: any fault drops the window
            self._drop(lane, error)
            concerned = lane.samples_of(frame)
            book.dropped[GATE_ERROR] += before + concerned - book.placed
            return concerned

    def _drop(self, lane: Lane, error: Exception) -> None:
        lane.lose_open()
        if lane.stream not in self.faulty:
            self.faulty.append(lane.stream)
        self._tell(f"{lane.device}, {lane.aggregate}", error)

    def _tell(self, name: str, error: Exception) -> None:
        now_ns = self._now()
        if now_ns - self._said_ns.get(name, 0) < _REPEAT_NS:
            return
        self._said_ns[name] = now_ns
        # The class alone: the text of an exception could hold a value.
        _log.error(
            "%s",
            MillgateError(
                tr("a fault in the gate dropped an open window", "闸门故障，丢弃一个未关闭时段"),
                where=name,
                remedy=type(error).__name__,
            ),
        )

    def _all_lanes(self) -> list[Lane]:
        released = [lane for device in sorted(self._lanes) for lane in self._lanes[device]]
        return [*released, *self._derived.all_lanes()]

    def _outlets(self) -> list[Lane | Output]:
        """Return all from which something leaves; inputs of derivations do not."""
        released = [lane for device in sorted(self._lanes) for lane in self._lanes[device]]
        return [*released, *self._derived.outputs]

    def _waiting_places(self) -> list[Lane | Output]:
        """Return all that keeps closed slots."""
        return [*self._all_lanes(), *self._derived.outputs]

    def _make_lanes(self, all_rules: Sequence[Rule]) -> dict[str, list[Lane]]:
        groups: dict[tuple[Any, ...], list[Rule]] = {}
        ranks: Counter[str] = Counter()
        for rule in all_rules:
            if rule.device not in self._tables:
                self.suspended.append(no_device(rule.device))
                continue
            # A point that leaves in several ways is one point in the account.
            key = (rule.device, rule.stream, rule.aggregate, ranks[rule.source])
            groups.setdefault((*key, rule.delay_s, rule.fill_within_s), []).append(rule)
            ranks[rule.source] += 1
        lanes: dict[str, list[Lane]] = {device: [] for device in self._tables}
        for (device, _, aggregate, rank, *_), rules in sorted(groups.items()):
            table = self._tables[device]
            columns = columns_of(table, rules, self.suspended)
            self._released[device][columns[columns >= 0]] = True
            lane_type: type[Lane] = transform(aggregate)
            book = Account() if rank else self.accounts[device]
            lanes[device].append(lane_type(table, rules, columns, book, rank=rank, key=self._key))
        return lanes

    def _constant_size(self) -> int:
        lanes = self._all_lanes()
        need = _PAGE + sum(_PER_LANE + lane.room() for lane in lanes)
        need += 512 * len(self._tables) + self._derived.room()
        return -(-need // _PAGE) * _PAGE


def _memory_content(memory: bytes) -> dict[str, Any]:
    """Raises Malformed when the bytes are not in their one form."""
    length = int.from_bytes(memory[:4], "big")
    content: dict[str, Any] = strict_cbor.decode(
        memory[4 : 4 + length], max_bytes=_MOST_MEMORY, max_depth=_MEMORY_DEPTH
    )
    if content.get("version") not in _READ_VERSIONS:
        raise Malformed("of another version")
    return content


def _without_readings(content: dict[str, Any]) -> dict[str, Any]:
    """Return gate memory that knows which slots are over, and nothing that was read."""
    for _, lane in content["lanes"]:
        lane["digests"] = b""
    derived = [[name, cursor, b"", []] for name, cursor, *_ in content.get("derived", [])]
    return {**content, "derived": derived}


def accounts_in(memory: bytes) -> dict[str, Account]:
    """Return the account of each device as of some gate memory.

    Raises:
        Malformed: when it is not gate memory.
    """
    accounts = _memory_content(memory)["accounts"]
    return {device: Account.from_dict(numbers) for device, numbers in accounts.items()}


def _binding(address: Address, epoch: int, policy_hash: bytes, number: int) -> bytes:
    return strict_cbor.encode(
        ["mg1/gate-memory", address.factory, address.agent, epoch, policy_hash, number]
    )


def seal_memory(
    memory: bytes, key: Secret[bytes], address: Address, epoch: int, policy_hash: bytes, number: int
) -> bytes:
    """Encrypt gate memory for the sealed side to keep."""
    nonce = os.urandom(_NONCE)
    aad = _binding(address, epoch, policy_hash, number)
    return nonce + AESGCM(_memory_key(key)).encrypt(nonce, memory, aad)


def open_memory(
    sealed: bytes, key: Secret[bytes], address: Address, epoch: int, policy_hash: bytes, number: int
) -> bytes:
    """Decrypt gate memory.

    Raises:
        MemoryLost: when it is not of this agent, epoch, policy and number, or was changed.
    """
    aad = _binding(address, epoch, policy_hash, number)
    try:
        return AESGCM(_memory_key(key)).decrypt(sealed[:_NONCE], sealed[_NONCE:], aad)
    except (InvalidTag, ValueError):
        raise MemoryLost(
            tr("gate memory cannot be opened with this key", "无法用此密钥打开闸门记忆"),
            remedy=tr("counters start from new baselines", "计数器将从新基线开始"),
        ) from None


def _memory_key(key: Secret[bytes]) -> bytes:
    return hashlib.sha256(b"mg1/gate-memory-key\x00" + key.reveal()).digest()
