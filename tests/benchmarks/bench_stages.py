"""What every stage from device to store costs, in one process: figures to read, nothing is asserted.

python -m tests.benchmarks.bench_stages
python -m tests.benchmarks.bench_stages --profile aggregator
"""

import argparse
import cProfile
import hashlib
import os
import pstats
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np

from agent.released import Released
from agent.sealedside import Sealer, _Chain, _fitting, _portions
from agent.spool import Entry, Spool
from aggregator.config import Factory
from aggregator.factors import Factors, shipped_sets
from aggregator.inbox import Inbox, Opened, Opener
from aggregator.ledger import Ledger, Overlap
from aggregator.projection import Cursor, Projection
from aggregator.stores import embedded
from protocols import batch
from protocols.batch import Block
from protocols.drivers.modbus import Config, Driver
from protocols.drivers.modbus.poller import Poll
from protocols.frame import SECOND, Frame, Ints
from protocols.strict_cbor import _MAX_ITEMS, MAX_DEPTH, _Reader
from security.answers import Head, Receipt, read_answer
from security.cose import sign_many
from security.envelope import MAX_SEALED, Header, Sealed, digest, pad, parse
from security.policy.bundle import SHEET, TrustedPolicy, read_bundle, sign_bundle
from security.policy.check import StreamTerms, stream_terms
from security.policy.compiled import (
    CompiledPolicy,
    ReleaseSheet,
    Rule,
    SheetPoint,
    SheetStream,
    Terms,
    pack_sheet,
    to_bytes,
)
from security.policy.gate import LATENESS_NS, Gate, seal_memory
from security.policy.streams import stream_id
from security.secret import Secret
from tests.benchmarks.common import MILLION, Cost, per, spent, table, walk
from tests.small_factory import Keys

T0: Final = 1_767_600_000
WINDOW_S: Final = 1
PAD: Final = 1024
GROUP: Final = 64
PER_EQUIPMENT: Final = 125

FACTORY_SIDE: Final = (
    "Modbus decode: registers to frames",
    "gate: feed, advance, take",
    "gate memory: make",
    "gate memory: encrypt",
    "check, batch encode",
    "pad, seal, sign",
    "spool commit",
    "spool read, receipt, settle, trim",
)
DECODE, GATE, MEMORY, LOCK, ENCODE, SEAL, SPOOL, SETTLE = FACTORY_SIDE
INBOX: Final = "inbox as a whole, groups of 64"
PARSE: Final = "  of it: parse, verify"
OPEN: Final = "  of it: open"
CHECK: Final = "  of it: batch decode, check"
REST: Final = "  of it: order, slots, ledger, receipt"
PROJECT: Final = "projection: blocks of series"
STORE: Final = "embedded store write"
BARE_SPOOL: Final = "bare: spool commit"
BARE_SETTLE: Final = "bare: spool read, settle, trim"
BARE_INBOX: Final = "bare: decode, check, slots, ledger"
PROTECTED: Final = (DECODE, GATE, MEMORY, LOCK, ENCODE, SEAL, SPOOL, SETTLE, INBOX)
BARE: Final = (DECODE, GATE, MEMORY, ENCODE, BARE_SPOOL, BARE_SETTLE, BARE_INBOX)
STAGES: Final = (*FACTORY_SIDE, INBOX, PARSE, OPEN, CHECK, REST, PROJECT, STORE)

SIZES: Final = (
    (125, 1),
    (125, 10),
    (125, 60),
    (125, 200),
    (125, 800),
    (1_000, 1),
    (1_000, 10),
    (1_000, 60),
    (10_000, 1),
    (10_000, 5),
    (10_000, 10),
)
HELD: Final = (0.0, 0.7)
ARCHIVE: Final = 1 << 20
MOST_TRIED: Final = 64_000
SEALING: Final = 3_000
"""About what sealing to two recipients adds, bytes."""


@dataclass(frozen=True)
class Shape:
    """How much comes at a time.

    Attributes:
        points: of the one device.
        rows: per message of the gate; one a second.
        messages: how many.
        step: how many batches the projection takes at a time.
    """

    points: int
    rows: int
    messages: int
    step: int = GROUP

    @property
    def name(self) -> str:
        return (
            f"{self.points:,} points x {self.rows:,} rows a message, "
            f"stored {self.step} message(s) at a time"
        )


class Clock:
    """A wall clock that is moved by hand."""

    def __init__(self) -> None:
        self.ns = T0 * SECOND

    def __call__(self) -> int:
        return self.ns


def device(points: int) -> Config:
    """Return a device of so many registers, in blocks of 125."""
    return Config.model_validate(
        {
            "id": "device",
            "kind": "modbus",
            "host": "127.0.0.1",
            "interval": "1s",
            "points": [
                {
                    "id": f"p{at}",
                    "address": f"holding:{at}",
                    "type": "uint16",
                    "scale": "0.01",
                    "unit": "kW",
                    "measurand": "power.active",
                }
                for at in range(points)
            ],
        }
    )


@cache
def policy(points: int) -> TrustedPolicy:
    """Return a signed policy that releases every point as its last value in each second."""
    keys = Keys()
    stream = stream_id(keys.pin, WINDOW_S)
    rules = [
        Rule(
            device="device",
            point=f"p{at}",
            address=f"holding:{at}",
            type="uint16",
            unit="kW",
            scale="0.01",
            offset="0",
            measurand="power.active",
            state_model="",
            consumer=0,
            stream=stream,
            number=at + 1,
            # One series per point: the measurand is the same everywhere.
            equipment=f"e{at // PER_EQUIPMENT}-{at % PER_EQUIPMENT}",
            role="",
            aggregate="last",
            window_s=WINDOW_S,
            exponent=-2,
            step=1,
            class_raw="general-2",
            class_released="general-1",
        )
        for at in range(points)
    ]
    terms = Terms(
        id="brain",
        encryption_key=keys.pin,
        receipt_key=bytes(32),
        purpose=1,
        right="",
        retention_days=730,
        pad=PAD,
    )
    compiled = CompiledPolicy(
        policy="mg-policy/1",
        version=1,
        previous=bytes(32),
        valid_from=0,
        valid_until=1 << 40,
        class_ceiling="general-2",
        consumers=[terms],
        rules=rules,
    )
    bundle = sign_bundle(compiled, keys.officers)
    return read_bundle(bundle, [key.public for key in keys.officers], 2)


@dataclass
class Costs:
    """What each stage took, and of which one a profile is made."""

    profiled: Sequence[str] = ()
    stages: dict[str, Cost] = field(default_factory=dict)
    profiler: cProfile.Profile = field(default_factory=cProfile.Profile)

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        cost = self.stages.setdefault(stage, Cost())
        if stage not in self.profiled:
            with spent(cost):
                yield
            return
        self.profiler.enable()
        try:
            yield
        finally:
            self.profiler.disable()

    def sum(self, stages: Sequence[str]) -> float:
        return sum(self.stages[stage].cpu for stage in stages)


class FactorySide:
    """The agent's stages, called one by one as the agent does."""

    def __init__(self, folder: Path, keys: Keys, policy: TrustedPolicy, points: int) -> None:
        self.keys = keys
        self.policy = policy
        self.clock = Clock()
        self.driver = Driver(device(points), self.clock)
        table = device(points).table()
        self.gate = Gate(policy.policy, {"device": table}, self.clock)
        self.blocks_per_poll = len(self.driver._poller._layout.requests)
        self.spool = Spool(folder / "spool.db")
        self.bare_spool = Spool(folder / "bare-spool.db")
        self.sealer = Sealer(
            self.spool,
            policy,
            {keys.pin: keys.brain_card},
            keys.signing,
            keys.audit.public,
            keys.address,
            self.clock,
        )
        self.sealer.restore(1)
        self.stream = stream_id(keys.pin, WINDOW_S)
        self.terms: StreamTerms = stream_terms(policy.sheets[0].sheet)[self.stream]
        self.key = Secret(bytes(32))
        self.number = self.bare_number = 0
        # Slots are closed from here on.
        self.gate.advance()

    def close(self) -> None:
        self.spool.close()
        self.bare_spool.close()

    def message(self, registers: list[bytes], costs: Costs) -> list[bytes]:
        """Bring rows of registers into both spools, a row a second; return the bare batches."""
        rows = len(registers)
        start = self.clock.ns
        times = start + np.arange(rows, dtype=np.int64) * SECOND
        with costs.of(DECODE):
            frames = self._frames(registers, times)
        self.clock.ns = start + rows * SECOND + LATENESS_NS
        with costs.of(GATE):
            for frame in frames:
                self.gate.feed(frame)
            self.gate.advance()
            blocks = self.gate.take()[self.stream]
        self.clock.ns = start + rows * SECOND
        self.number += 1
        with costs.of(MEMORY):
            memory = self.gate.memory()
        with costs.of(LOCK):
            locked = seal_memory(
                memory, self.key, self.keys.address, 1, self.policy.hash, self.number
            )
        with costs.of(ENCODE):
            self.terms.check(blocks)
            parts = [one for portion in _portions(blocks) for one in _fitting(portion, PAD)]
        with costs.of(SEAL):
            entries = self._sealed(parts)
        with costs.of(SPOOL):
            self.spool.commit(1, self.number, self.policy.hash, locked, entries)
        self._commit_bare(memory, parts, entries, costs)
        return [content for content, _ in parts]

    def _frames(self, registers: list[bytes], times: Ints) -> list[Frame]:
        layout = self.driver._poller._layout
        bad = [False] * self.blocks_per_poll + [True]
        polls = [
            Poll(np.frombuffer(row, ">u2"), [time] * len(bad), bad, layout)
            for row, time in zip(registers, times.tolist(), strict=True)
        ]
        return self.driver._frames_of(polls)

    def _sealed(self, parts: list[tuple[bytes, list[Block]]]) -> list[Entry]:
        chain = _Chain(self.spool, self.keys.address, 1, self.stream)
        lane = self.sealer._lanes[self.stream]
        entries = []
        for content, blocks in parts:
            start = min(one.slot for one in blocks) * WINDOW_S
            end = max(one.slot + one.rows for one in blocks) * WINDOW_S
            cells = sum(one.values for one in blocks)
            padded = pad(content, PAD)
            entries.append(
                self.sealer._seal(chain, lane, padded, (start, end), cells, is_sheet=False)
            )
        return entries

    def _commit_bare(
        self,
        memory: bytes,
        parts: list[tuple[bytes, list[Block]]],
        entries: list[Entry],
        costs: Costs,
    ) -> None:
        bare = [
            Entry(
                stream=entry.stream,
                sequence=entry.sequence,
                digest=entry.digest,
                sheet=entry.sheet,
                is_sheet=False,
                cells=entry.cells,
                sealed=content,
            )
            for entry, (content, _) in zip(entries, parts, strict=True)
        ]
        with costs.of(BARE_SPOOL):
            self.bare_spool.commit(1, self.number, self.policy.hash, memory, bare)


class BrainSide:
    """The aggregator's stages, and a bare ledger beside them."""

    def __init__(self, folder: Path, keys: Keys, clock: Clock) -> None:
        self.keys = keys
        self.factories = {keys.address: Factory("firm", "main", keys.agent_card)}
        opened = Opened()
        self.ledger = Ledger(folder / "ledger.db")
        self.bare_ledger = Ledger(folder / "bare-ledger.db")
        self.opener = Opener(self.ledger, keys.encryption, opened)
        self.inbox = Inbox(
            self.ledger,
            self.opener,
            keys.encryption.public.kid,
            keys.pin,
            keys.receipt,
            lambda: self.factories,
            clock,
        )
        reader = Ledger(folder / "ledger.db")
        config = embedded.Config(path=folder / "store")
        self.stores = {
            bucket: embedded.Store(config, bucket)
            for bucket in ("future_factory", "carbon_emission")
        }
        self.projecting = Opener(reader, keys.encryption, opened)
        self.projection = Projection(
            reader,
            self.projecting,
            self.stores,
            Factors(shipped_sets(), "CN-ZJ", ""),
            lambda: self.factories,
            Cursor(folder / "projection.json"),
            "bench",
        )
        self.reader = reader
        self.projected = 0

    def receive(self, payloads: list[bytes], costs: Costs) -> bytes:
        """Take a group of sealed messages; return the signed receipt."""
        topic = self.keys.address.topic("up")
        with costs.of(INBOX):
            outcome = self.inbox.process([(topic, payload) for payload in payloads])
        if outcome.kept != len(payloads):
            raise RuntimeError(f"not all was kept: {outcome.counts}")
        return outcome.answers[0][1]

    def take_apart(self, payloads: list[bytes], terms: StreamTerms, costs: Costs) -> list[Header]:
        """Do the inbox's parts one by one, on the same messages."""
        with costs.of(PARSE):
            messages = [self._verified(payload) for payload in payloads]
        with costs.of(OPEN):
            contents = [self.opener.decrypt(message, terms.pad) for message in messages]
        with costs.of(CHECK):
            for content in contents:
                terms.check(batch.decode(content))
        return [message.header for message in messages]

    def _verified(self, payload: bytes) -> Sealed:
        sealed = parse(payload)
        sealed.signed.verify(self.keys.signing.public)
        return sealed

    def receive_bare(
        self, headers: list[Header], contents: list[bytes], terms: StreamTerms, costs: Costs
    ) -> None:
        """Keep the same batches without any protection: the same rows, the same transactions."""
        ledger = self.bare_ledger
        overlap = Overlap(ledger, lambda _: [])
        with costs.of(BARE_INBOX), ledger.transaction():
            for header, content in zip(headers, contents, strict=True):
                chain = ledger.chain(header)
                with ledger.attempt():
                    blocks = batch.decode(content)
                    terms.check(blocks)
                    for block in blocks:
                        ledger.cover(chain.agent, terms.window_s, block, overlap)
                    cells = sum(block.values for block in blocks)
                    ledger.keep(chain.agent, header, digest(content), content, cells, T0)

    def project(self, step: int, costs: Costs) -> None:
        """Write what is new to the store, so many batches at a time."""
        self.projection.name_agents()
        while kept := self.reader.batches(self.projected, step):
            with costs.of(PROJECT):
                found = self.projection.blocks(kept)
            with costs.of(STORE):
                for bucket, blocks in found.items():
                    self.stores[bucket].write(blocks)
            self.projected = kept[-1].id

    def close(self) -> None:
        for ledger in (self.ledger, self.bare_ledger, self.reader):
            ledger.close()
        for store in self.stores.values():
            store.close()


def introduce(factory: FactorySide, brain: BrainSide) -> None:
    """Deliver the release sheet and let the brain read it; that is not measured."""
    (sheet,) = factory.spool.waiting(0, GROUP)
    receipt = brain.receive([sheet.sealed], Costs())
    factory.spool.settle(_heads(factory, receipt), [], digest(receipt))
    (agent,) = brain.reader.agents().values()
    for opener in (brain.opener, brain.projecting):
        if opener.sheet(agent, factory.policy.sheets[0].hash) is None:
            raise RuntimeError("the sheet did not arrive")


def _heads(factory: FactorySide, receipt: bytes) -> Sequence[Head]:
    answer = read_answer(receipt, factory.keys.address, [factory.keys.receipt.public])
    if not isinstance(answer, Receipt):
        raise TypeError("not a receipt")
    return answer.heads


def deliver(factory: FactorySide, brain: BrainSide, step: int, costs: Costs) -> int:
    """Bring what waits in the spools to the ledgers and to the store; return its sealed bytes."""
    spool, bare, size = factory.spool, factory.bare_spool, 0
    while True:
        with costs.of(SETTLE):
            payloads = [row.sealed for row in spool.waiting(0, GROUP)]
        if not payloads:
            return size
        size += sum(map(len, payloads))
        headers = brain.take_apart(payloads, factory.terms, costs)
        receipt = brain.receive(payloads, costs)
        with costs.of(SETTLE):
            heads = _heads(factory, receipt)
            spool.settle(heads, [], digest(receipt))
            spool.trim(ARCHIVE)
        with costs.of(BARE_SETTLE):
            contents = [row.sealed for row in bare.waiting(0, GROUP)]
            bare.settle(heads, [], bytes(32))
            bare.trim(ARCHIVE)
        brain.receive_bare(headers, contents, factory.terms, costs)
        brain.project(step, costs)


def run(shape: Shape, folder: Path, profiled: Sequence[str]) -> None:
    """Send a shape through all stages, and print what each cost."""
    keys = Keys()
    trusted = policy(shape.points)
    factory = FactorySide(folder, keys, trusted, shape.points)
    costs = Costs(profiled)
    size = 0
    with ExitStack() as stack:
        brain = BrainSide(folder, keys, factory.clock)
        stack.callback(brain.close)
        stack.callback(factory.close)
        introduce(factory, brain)
        for first in range(0, shape.messages, GROUP):
            rows = shape.rows * min(GROUP, shape.messages - first)
            values = [row.tobytes() for row in walk(rows, shape.points, seed=first).astype(">u2")]
            for start in range(0, rows, shape.rows):
                factory.message(values[start : start + shape.rows], costs)
            size += deliver(factory, brain, shape.step, costs)
    cells = shape.points * shape.rows * shape.messages
    if profiled:
        pstats.Stats(costs.profiler).sort_stats("tottime").print_stats(25)
        return
    show(shape, costs, cells, size)


def show(shape: Shape, costs: Costs, cells: int, size: int) -> None:
    """Print the table of a shape."""
    rest = costs.stages.setdefault(REST, Cost())
    parts = [costs.stages[part] for part in (PARSE, OPEN, CHECK)]
    rest.cpu = max(costs.stages[INBOX].cpu - sum(part.cpu for part in parts), 0)
    rest.wall = max(costs.stages[INBOX].wall - sum(part.wall for part in parts), 0)
    protected, bare = costs.sum(PROTECTED), costs.sum(BARE)
    lines: list[list[object]] = [
        _line(stage, cells, costs.stages[stage].cpu, costs.stages[stage].wall)
        for stage in (*STAGES, BARE_SPOOL, BARE_SETTLE, BARE_INBOX)
    ]
    for name, stages in (
        ("device to ledger and receipt, protection on", PROTECTED),
        ("device to ledger, protection off", BARE),
        ("device to store, protection on", (*PROTECTED, PROJECT, STORE)),
    ):
        wall = sum(costs.stages[stage].wall for stage in stages)
        lines.append(_line(name, cells, costs.sum(stages), wall))
    title = f"{shape.name}, {cells / MILLION:.1f} million values"
    table(title, ("stage", "values per CPU-s", "CPU-s per million", "wall s per million"), lines)
    print(
        f"  protection on / off: {protected / bare:.2f} of the CPU; "
        f"{size / shape.messages / 1024:.1f} KiB a message, {size / cells:.3f} bytes per released value"
    )


def _line(name: str, cells: int, cpu: float, wall: float) -> list[object]:
    million = cells / MILLION
    return [name, per(cells, cpu), f"{cpu / million:.3f}", f"{wall / million:.3f}"]


def sizes() -> None:
    """Print how many bytes a released value takes, by how much one message holds."""
    keys = Keys()
    lines: list[list[object]] = []
    with tempfile.TemporaryDirectory() as folder:
        for points, rows in SIZES:
            trusted = policy(points)
            factory = FactorySide(Path(folder) / f"{points}-{rows}", keys, trusted, points)
            line: list[object] = [f"{points:,} points x {rows:,} rows", f"{points * rows:,}"]
            last = 1
            for number, held in enumerate(HELD, 1):
                mantissa = walk(rows, points, held)
                numbers = np.arange(1, points + 1)
                block = Block(T0, numbers, mantissa, np.zeros(mantissa.shape, np.uint8))
                message = Released(number, trusted.hash, {factory.stream: [block]}, b"")
                factory.sealer.commit(message)
                found = factory.spool.waiting(last, 1000)
                last = found[-1].id
                size = sum(len(row.sealed) for row in found)
                line += [len(found), f"{size / 1024:.1f}", f"{size / points / rows:.3f}"]
            lines.append(line)
            factory.close()
    heads = ["one message", "cells"]
    for held in HELD:
        heads += [f"batches, {held:.0%} held", "KiB", "bytes/value"]
    table("bytes per released value: sealed to two recipients, padded to 1 KiB", heads, lines)


def limits() -> None:
    """Print how many points can be released at once."""
    lines: list[list[object]] = []
    for name, labels in (
        ("one label per 125 points", lambda at: f"line-{at // 125}"),
        ("labels of 12 random letters", lambda at: hashlib.sha256(b"%d" % at).hexdigest()[:12]),
    ):
        most = _largest_sheet(labels)
        size = _sealed_sheet(most, labels)
        lines.append(
            [name, f"{most:,}" if most < MOST_TRIED else f"over {most:,}", f"{size / most:.1f}"]
        )
    heads = ("the points' public labels", "most points", "bytes per point")
    table(f"release sheet: what fits one sealed message of {MAX_SEALED // 1024} KiB", heads, lines)
    lines = []
    for name, few, more in (
        ("a release sheet", _sheet(10, str), _sheet(20, str)),
        ("a policy", policy(10).policy, policy(20).policy),
    ):
        each = (_items(to_bytes(more)) - _items(to_bytes(few))) / 10
        most = int((_MAX_ITEMS - _items(to_bytes(few))) / each) + 10
        lines.append([name, f"{most:,}", f"{each:.0f}"])
    heads = ("what strict CBOR reads", "most points", "items per point")
    table(f"bounded to {_MAX_ITEMS:,} items", heads, lines)


def _items(data: bytes) -> int:
    reader = _Reader(data, frozenset(), MAX_DEPTH)
    reader.item(0)
    return reader.items


def _largest_sheet(labels: Callable[[int], str]) -> int:
    low, high = 1_000, MOST_TRIED
    if _sealed_sheet(high, labels) <= MAX_SEALED:
        return high
    while high - low > 500:
        middle = (low + high) // 2
        fits = _sealed_sheet(middle, labels) <= MAX_SEALED
        low, high = (middle, high) if fits else (low, middle)
    return low


def _sealed_sheet(points: int, labels: Callable[[int], str]) -> int:
    """Return the bytes of a sealed sheet; sealing adds the same to every content."""
    signed = sign_many(SHEET, to_bytes(_sheet(points, labels)), Keys().officers)
    return len(pad(pack_sheet(signed), PAD)) + SEALING


def _sheet(points: int, labels: Callable[[int], str]) -> ReleaseSheet:
    keys = Keys()
    stream = stream_id(keys.pin, WINDOW_S)
    return ReleaseSheet(
        sheet="mg-sheet/1",
        policy_version=1,
        policy_hash=bytes(32),
        valid_from=0,
        valid_until=1 << 40,
        consumer=keys.pin,
        purpose=1,
        right="",
        retention_days=730,
        streams=[SheetStream(id=stream, window_s=WINDOW_S, pad=PAD)],
        points=[
            SheetPoint(
                number=at + 1,
                stream=stream,
                measurand="power.active",
                part="",
                unit="kW",
                exponent=-2,
                step=1,
                aggregate="last",
                equipment=labels(at),
                role="",
            )
            for at in range(points)
        ],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--messages", type=int, default=192, help="of narrow; fewer of the others")
    parser.add_argument("--points", type=int, default=10_000, help="of the wide shape")
    parser.add_argument("--rows", type=int, default=100, help="per message of the narrow shape")
    parser.add_argument("--only", choices=["narrow", "wide", "live", "sizes", "limits"])
    parser.add_argument("--profile", help="profile the stages whose name has this in it")
    args = parser.parse_args()
    os.environ.setdefault("MILLGATE_LANG", "en")
    stages = [stage for stage in STAGES if args.profile and args.profile in stage]
    shapes = {
        "narrow": Shape(125, args.rows, args.messages),
        "wide": Shape(args.points, 1, args.messages // 3),
        "live": Shape(args.points, 1, args.messages // 12, 1),
    }
    for name, shape in shapes.items():
        if args.only in (None, name):
            with tempfile.TemporaryDirectory() as folder:
                run(shape, Path(folder), stages)
    if args.only in (None, "sizes"):
        sizes()
    if args.only in (None, "limits"):
        limits()


if __name__ == "__main__":
    main()
