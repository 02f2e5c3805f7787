"""The sealed side: everything that was released is sealed, once, in order, in one transaction."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from agent import sealedside
from agent.disk import SpoolThread
from agent.link import GateLink, joined
from agent.released import Committed, Ended, Hello, Released, Restore
from agent.sealedside import NotOurs, SealedSide, Sealer, verified
from agent.spool import Spool
from protocols import batch
from protocols.batch import Block
from protocols.frame import SECOND, Ints
from protocols.topics import Address
from security.answers import Head, Refused
from security.cards import BrainCard
from security.envelope import (
    BATCH,
    MAX_SEALED,
    REASON_EXPIRED,
    REASON_STOPPED,
    SHEET,
    CannotOpen,
    Gap,
    Sealed,
    digest,
    genesis,
    open_sealed,
    parse,
    unpad,
)
from security.keys import OpeningKey, SigningKey
from security.policy.bundle import (
    SignedSheet,
    TrustedPolicy,
    read_bundle,
    read_sheet,
    sign_bundle,
)
from security.policy.check import BeyondSheet
from security.policy.compiled import CompiledPolicy, Rule, Terms, content_hash, unpack_sheet
from security.policy.sheets import release_sheets
from security.policy.streams import stream_id
from security.secret import Secret
from tests.unit.gate_material import counter, point, policy, rule, table
from tests.unit.policy_material import officer

ADDRESS = Address(b"f" * 16, b"a" * 16)
BRAIN = OpeningKey(Secret(b"\x01" * 32))
AUDIT = OpeningKey(Secret(b"\x02" * 32))
STRANGER = OpeningKey(Secret(b"\x03" * 32))
SIGNER = SigningKey(Secret(b"\x04" * 32))
PIN = content_hash(BRAIN.public.public)
CARD = BrainCard(
    card="millgate-brain/1",
    name="brain",
    encryption_key=BRAIN.public,
    receipt_key=officer(7).public,
)
NOW = 1_767_700_000
PAD = 1024
WIDTH = 20_000
FAST, SLOW, SHEETS = (stream_id(PIN, window_s) for window_s in (1, 60, 0))


def trusted(version: int = 1) -> TrustedPolicy:
    points = [point(f"p{at}", "power.active") for at in range(400)]
    owner = table([*points, counter("energy"), point("m", "machine.state")])
    rules = [rule(owner, p.id, at + 1, window_s=1, stream=FAST) for at, p in enumerate(points)]
    rules += [
        rule(owner, "energy", 100_000, window_s=60, stream=SLOW),
        rule(owner, "m", 100_010, window_s=60, stream=SLOW),
    ]
    compiled = _with_terms(policy(rules), version)
    return read_bundle(sign_bundle(compiled, [officer(1)]), [officer(1).public], 1)


def wide() -> TrustedPolicy:
    """Return a policy of as many points as there may be; only what the sealer looks at is real."""
    one = rule(table([counter("c")]), "c", 1, window_s=1, stream=FAST)
    rules = [one.model_copy(update={"number": at + 1}) for at in range(WIDTH)]
    compiled = _with_terms(policy(rules), 1)
    (sheet,) = release_sheets(compiled)
    return TrustedPolicy(compiled, b"h" * 32, (SignedSheet(sheet, b"signed", b"s" * 32),))


def _with_terms(made: CompiledPolicy, version: int) -> CompiledPolicy:
    terms: Terms = made.consumers[0].model_copy(
        update={"encryption_key": PIN, "pad": PAD, "right": "DR-2026-0017"}
    )
    rules: list[Rule] = made.rules
    return made.model_copy(update={"version": version, "consumers": [terms], "rules": rules})


@pytest.fixture(scope="module")
def normal() -> TrustedPolicy:
    return trusted()


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    opened = Spool(tmp_path / "spool.db")
    yield opened
    opened.close()


def sealer_of(spool: Spool, what: TrustedPolicy, ended: Ended = Ended.NOT) -> Sealer:
    return Sealer(
        spool,
        what,
        {PIN: CARD},
        SIGNER,
        AUDIT.public,
        ADDRESS,
        lambda: NOW * SECOND,
        ended=ended,
    )


def started(spool: Spool, what: TrustedPolicy, epoch: int = 1) -> Sealer:
    sealer = sealer_of(spool, what)
    sealer.restore(epoch)
    return sealer


def fast(slot: int, mantissa: Ints, *, first: int = 1) -> Block:
    return Block(
        slot=slot,
        numbers=np.arange(first, first + mantissa.shape[1]),
        mantissa=mantissa,
        quality=np.zeros(mantissa.shape, np.uint8),
    )


def noise(rows: int, columns: int, seed: int = 1) -> Ints:
    """Return values that no compression makes smaller."""
    return np.random.default_rng(seed).integers(-(2**52), 2**52, (rows, columns))


def message(number: int, what: TrustedPolicy, **streams: list[Block]) -> Released:
    ids = {"fast": FAST, "slow": SLOW}
    by_id = {ids[name]: blocks for name, blocks in streams.items()}
    return Released(number, what.hash, by_id, b"memory %d" % number)


def sealed_in(spool: Spool) -> list[Sealed]:
    found = [parse(row.sealed) for row in spool.waiting(0, 10_000)]
    for one in found:
        one.signed.verify(SIGNER.public)
    return found


def batches_in(spool: Spool, stream: int = FAST) -> list[Sealed]:
    return [
        one for one in sealed_in(spool) if one.content_type == BATCH and one.header.stream == stream
    ]


def content_of(one: Sealed, key: OpeningKey = BRAIN) -> list[Block]:
    return batch.decode(unpad(open_sealed(one, key)))


Cells = list[tuple[int, int, int, int, int]]


def cells_of(blocks: list[Block]) -> Cells:
    """Return (number, slot, mantissa, quality, span) of every cell, in order."""
    return [
        (int(number), block.slot + row, int(m), int(q), int(s))
        for block in blocks
        for row in range(block.rows)
        for number, m, q, s in zip(
            block.numbers,
            block.mantissa[row],
            block.quality[row],
            block.span_matrix()[row],
            strict=True,
        )
    ]


def assert_in_order(cells: Cells) -> None:
    """Every number's slots come in their order."""
    newest: dict[int, int] = {}
    for number, slot, *_ in cells:
        assert newest.get(number, -1) < slot
        newest[number] = slot


def assert_chained(chain: list[Sealed]) -> None:
    """Each batch is the next one and names the one before."""
    previous = genesis(ADDRESS, 1, chain[0].header.stream)
    for sequence, one in enumerate(chain):
        assert (one.header.sequence, one.header.previous) == (sequence, previous)
        previous = one.digest


def test_what_is_released_can_be_read_by_brain_and_audit_and_nobody_else(
    spool: Spool, normal: TrustedPolicy
) -> None:
    block = fast(50, noise(3, 5))
    started(spool, normal).commit(message(1, normal, fast=[block]))
    (one,) = batches_in(spool)
    assert cells_of(content_of(one)) == cells_of(content_of(one, AUDIT)) == cells_of([block])
    assert one.header.recipients == tuple(sorted([BRAIN.public.kid, AUDIT.public.kid]))
    with pytest.raises(CannotOpen):
        open_sealed(one, STRANGER)


def test_the_header_says_what_was_enforced(spool: Spool, normal: TrustedPolicy) -> None:
    blocks = [fast(50, noise(3, 5)), fast(70, noise(2, 5, seed=2))]
    started(spool, normal).commit(message(1, normal, fast=blocks))
    header = batches_in(spool)[0].header
    assert header.address == ADDRESS
    assert (header.epoch, header.stream, header.sequence) == (1, FAST, 0)
    assert header.previous == genesis(ADDRESS, 1, FAST)
    assert (header.policy_version, header.policy_hash) == (1, normal.hash)
    assert header.sheet_hash == normal.sheets[0].hash
    assert header.window == (50, 72)
    assert header.issued_at == NOW
    assert header.purpose == 1
    assert len(header.right_hash) == 32


@pytest.mark.parametrize(
    "shape", [(600, 400), (20_000, 3), (3, 400), (1, 400)], ids=lambda shape: f"{shape}"
)
def test_splitting_to_fit_loses_nothing_and_keeps_order(
    spool: Spool, normal: TrustedPolicy, shape: tuple[int, int]
) -> None:
    blocks = [fast(1000, noise(*shape)), fast(90_000, noise(*shape, seed=2))]
    started(spool, normal).commit(message(1, normal, fast=blocks))
    rows = spool.waiting(0, 10_000)
    assert all(len(row.sealed) <= MAX_SEALED for row in rows)
    found = [cell for one in batches_in(spool) for cell in cells_of(content_of(one))]
    assert sorted(found) == sorted(cells_of(blocks))
    assert_in_order(found)
    assert_chained(batches_in(spool))
    assert spool.tally().released == 2 * shape[0] * shape[1]


def test_spans_and_missing_cells_survive_splitting(
    spool: Spool, normal: TrustedPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealedside, "_MOST_PADDED", 2 * PAD)
    monkeypatch.setattr(sealedside, "_MOST_CELLS", 700)
    rows = 2000
    rng = np.random.default_rng(3)
    quality = rng.choice([0, 1, 2], (rows, 1)).astype(np.uint8)
    mantissa = np.where(quality == 2, 0, rng.integers(0, 2**50, (rows, 1)))
    cells = np.flatnonzero((quality[:, 0] != 2) & (rng.random(rows) < 0.3))
    energy = Block(
        slot=700,
        numbers=np.array([100_000]),
        mantissa=mantissa,
        quality=quality,
        span_cells=cells,
        spans=rng.integers(2, 900, len(cells)),
    )
    started(spool, normal).commit(message(1, normal, slow=[energy]))
    assert len(batches_in(spool, SLOW)) > 5
    found = [cell for one in batches_in(spool, SLOW) for cell in cells_of(content_of(one))]
    assert found == cells_of([energy])


def test_one_slot_of_very_many_points_fits(spool: Spool) -> None:
    """Even when nothing can be compressed and every cell counts over many slots."""
    rng = np.random.default_rng(6)
    block = Block(
        slot=1000,
        numbers=np.arange(1, WIDTH + 1),
        mantissa=np.abs(noise(1, WIDTH)),
        quality=np.zeros((1, WIDTH), np.uint8),
        span_cells=np.arange(WIDTH),
        spans=rng.integers(2, 2**47, WIDTH),
    )
    what = wide()
    started(spool, what).commit(message(1, what, fast=[block]))
    found = [cell for one in batches_in(spool) for cell in cells_of(content_of(one))]
    assert sorted(found) == sorted(cells_of([block]))
    assert len(batches_in(spool)) > 1
    assert all(len(row.sealed) <= MAX_SEALED for row in spool.waiting(0, 10_000))


def test_a_wide_block_is_parted_with_its_spans_and_never_within_a_state(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert sealedside._MOST_COLUMNS % 9 == 0
    monkeypatch.setattr(sealedside, "_MOST_COLUMNS", 18)
    rng = np.random.default_rng(4)
    cells = np.sort(rng.choice(3 * 100, 70, replace=False))
    block = Block(
        slot=5,
        numbers=np.arange(1, 101),
        mantissa=rng.integers(0, 9, (3, 100)),
        quality=np.zeros((3, 100), np.uint8),
        span_cells=cells,
        spans=rng.integers(2, 9, 70),
    )
    parts = [part for group in sealedside._portions([block]) for part in group]
    assert [len(part.numbers) for part in parts] == [18] * 5 + [10]
    decoded = batch.decode(batch.encode(parts))
    assert sorted(cells_of(decoded)) == sorted(cells_of([block]))


def test_more_blocks_than_a_batch_may_hold_are_sealed_as_several() -> None:
    one, good = np.ones((1, 1), np.int64), np.zeros((1, 1), np.uint8)
    blocks = [
        Block(slot, np.arange(1), one, good) for slot in range(0, 2 * batch.MAX_BLOCKS + 2, 2)
    ]
    groups = sealedside._portions(blocks)
    assert [len(group) for group in groups] == [batch.MAX_BLOCKS, 1]
    assert [len(batch.decode(batch.encode(group))) for group in groups] == [batch.MAX_BLOCKS, 1]


def test_the_size_of_a_batch_says_nothing_about_its_values(
    spool: Spool, normal: TrustedPolicy
) -> None:
    sealer = started(spool, normal)
    contents = [np.zeros((4, 20), np.int64), noise(4, 20), np.full((4, 20), 7), noise(1, 1)]
    for number, mantissa in enumerate(contents, 1):
        sealer.commit(message(number, normal, fast=[fast(10 * number, mantissa)]))
    padded = {len(open_sealed(one, BRAIN)) for one in batches_in(spool)}
    sealed = {len(row.sealed) for row in spool.waiting(1, 100)}
    assert padded == {PAD}
    # Sequences and times of one digit more are one byte longer, at most.
    assert max(sealed) - min(sealed) <= 4


def test_a_larger_batch_is_padded_to_a_multiple(spool: Spool, normal: TrustedPolicy) -> None:
    started(spool, normal).commit(message(1, normal, fast=[fast(1, noise(30, 100))]))
    (one,) = batches_in(spool)
    size = len(open_sealed(one, BRAIN))
    assert size % PAD == 0
    assert size > 8 * PAD


def test_the_sheet_comes_first_in_an_epoch_and_once(spool: Spool, normal: TrustedPolicy) -> None:
    sealer = sealer_of(spool, normal)
    for _ in range(3):
        sealer.restore(1)
    sealer.commit(message(1, normal, fast=[fast(1, noise(1, 1))]))
    kinds = [(one.content_type, one.header.stream) for one in sealed_in(spool)]
    assert kinds == [(SHEET, SHEETS), (BATCH, FAST)]
    sealer.restore(2)
    assert [one.header.epoch for one in sealed_in(spool)] == [1, 1, 2]
    signed = unpack_sheet(unpad(open_sealed(sealed_in(spool)[0], BRAIN)))
    assert read_sheet(signed, [officer(1).public], 1) == normal.sheets[0]


def test_a_new_policy_version_sends_its_sheet_before_its_first_batch(
    spool: Spool, normal: TrustedPolicy
) -> None:
    started(spool, normal).commit(message(1, normal, fast=[fast(1, noise(1, 1))]))
    newer = trusted(2)
    started(spool, newer).commit(message(2, newer, fast=[fast(2, noise(1, 1))]))
    found = sealed_in(spool)
    assert [one.content_type for one in found] == [SHEET, BATCH, SHEET, BATCH]
    assert [one.header.policy_version for one in found] == [1, 1, 2, 2]
    assert found[2].header.sequence == 1
    assert found[2].header.previous == found[0].digest
    assert found[3].header.previous == found[1].digest


def test_chains_go_on_over_restarts(tmp_path: Path, normal: TrustedPolicy) -> None:
    number = 0
    for _ in range(4):
        spool = Spool(tmp_path / "spool.db")
        sealer = started(spool, normal)
        for _ in range(2):
            number += 1
            blocks = [fast(number, noise(1, 3, seed=number))]
            energy = [fast(number, np.array([[5]]), first=100_000)]
            sealer.commit(message(number, normal, fast=blocks, slow=energy))
        spool.close()
    spool = Spool(tmp_path / "spool.db")
    for stream in (FAST, SLOW):
        chain = batches_in(spool, stream)
        assert_chained(chain)
        assert spool.chain(1, stream) == (8, chain[-1].digest)
    spool.close()


def test_a_new_epoch_starts_its_chains_and_its_memory_anew(
    spool: Spool, normal: TrustedPolicy
) -> None:
    sealer = started(spool, normal)
    sealer.commit(message(1, normal, fast=[fast(1, noise(1, 1))]))
    assert sealer.restore(1) == Restore(1, 1, normal.hash, b"memory 1", NOW)
    assert sealer.restore(2) == Restore(0, 2, normal.hash, b"", NOW)
    sealer.commit(message(1, normal, fast=[fast(2, noise(1, 1))]))
    newest = batches_in(spool)[-1].header
    assert (newest.epoch, newest.sequence) == (2, 0)
    assert newest.previous == genesis(ADDRESS, 2, FAST)


def test_a_crash_while_an_epoch_opens_takes_no_memory_over(
    spool: Spool, normal: TrustedPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealer = started(spool, normal)
    sealer.commit(message(1, normal, fast=[fast(1, noise(1, 1))]))

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    for name in ("begin", "set_meta"):
        with monkeypatch.context() as patched:
            patched.setattr(spool, name, crash)
            with pytest.raises(KeyboardInterrupt):
                sealer_of(spool, normal).restore(2)
    assert sealer_of(spool, normal).restore(2) == Restore(0, 2, normal.hash, b"", NOW)
    sheets = [one for one in sealed_in(spool) if one.content_type == SHEET]
    assert [one.header.epoch for one in sheets] == [1, 2]


def test_a_message_is_committed_whole_or_not_at_all(
    spool: Spool, normal: TrustedPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealer = started(spool, normal)
    sealer.commit(message(1, normal, fast=[fast(1, noise(1, 2))]))
    before = (spool.tally(), spool.meta("number"), spool.meta("memory"), spool.chain(1, FAST))
    two = message(
        2, normal, fast=[fast(2, noise(1, 2))], slow=[fast(2, np.array([[5]]), first=100_000)]
    )
    works = spool._insert
    for fail_at in (1, 2):
        calls = itertools.count(1)

        def insert(*args: object, _calls: Iterator[int] = calls, _at: int = fail_at) -> None:
            if next(_calls) == _at:
                raise OSError("the disk is gone")
            works(*args)  # type: ignore[arg-type] # passed on as they came

        monkeypatch.setattr(spool, "_insert", insert)
        with pytest.raises(OSError, match="disk"):
            sealer.commit(two)
        after = (spool.tally(), spool.meta("number"), spool.meta("memory"), spool.chain(1, FAST))
        assert after == before
    monkeypatch.setattr(spool, "_insert", works)
    sealer.commit(two)
    assert (spool.meta("number"), spool.meta("memory")) == (2, b"memory 2")
    assert [one.header.sequence for one in batches_in(spool)] == [0, 1]


@pytest.mark.parametrize(
    "block",
    [
        fast(1, np.array([[1]]), first=5_000),
        fast(1, np.array([[-5]]), first=100_000),
        fast(1, np.array([[1]]), first=100_010),
    ],
    ids=["not released", "off the bounds", "half a state"],
)
def test_beyond_the_sheet_nothing_is_committed(
    spool: Spool, normal: TrustedPolicy, block: Block
) -> None:
    sealer = started(spool, normal)
    before = spool.tally()
    with pytest.raises(BeyondSheet):
        sealer.commit(message(1, normal, fast=[fast(1, noise(1, 1))], slow=[block]))
    assert (spool.tally(), spool.meta("number")) == (before, 0)


def test_a_refused_batch_is_declared_once_by_the_next_one(
    spool: Spool, normal: TrustedPolicy
) -> None:
    sealer = started(spool, normal)
    sealer.commit(message(1, normal, fast=[fast(1, noise(1, 1))]))
    (one,) = batches_in(spool)
    spool.settle([], [Refused(Head(1, FAST, 0, one.digest), 4)], b"r" * 32)
    for number in (2, 3):
        sealer.commit(message(number, normal, fast=[fast(number, noise(1, 1))]))
    gaps = [[(g.first, g.last) for g in one.header.gaps] for one in batches_in(spool)]
    assert gaps == [[(0, 0)], []]
    assert batches_in(spool)[0].header.receipt == (1, b"r" * 32)


def test_an_empty_message_keeps_memory_and_sends_nothing(
    spool: Spool, normal: TrustedPolicy
) -> None:
    sealer = started(spool, normal)
    sealer.commit(message(1, normal))
    assert spool.meta("memory") == b"memory 1"
    assert batches_in(spool) == []


def test_the_digest_that_is_kept_is_that_of_the_bytes(spool: Spool, normal: TrustedPolicy) -> None:
    started(spool, normal).commit(message(1, normal, fast=[fast(1, noise(1, 1))]))
    for row, one in zip(spool.waiting(0, 10), sealed_in(spool), strict=True):
        assert digest(row.sealed) == one.digest


@asynccontextmanager
async def serving(
    spool: Spool, what: TrustedPolicy, max_bytes: int = 64 << 20, stop: asyncio.Event | None = None
) -> AsyncIterator[tuple[GateLink, SealedSide, list[int]]]:
    """Run a sealed side; give the gate side's end of its link."""
    told: list[int] = []
    thread = SpoolThread()

    async def enforce(_: Hello) -> tuple[Sealer, int]:
        return sealer_of(spool, what), 1

    side = SealedSide(max_bytes, thread, enforce, lambda: told.append(1), _known)
    with joined() as (mine, its):
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            task = group.create_task(side.serve(its, stop or asyncio.Event()))
            yield mine, side, told
            task.cancel()
    thread.shutdown()


async def test_it_answers_message_by_message(spool: Spool, normal: TrustedPolicy) -> None:
    async with serving(spool, normal) as (link, _, told):
        await link.send(Hello(normal.hash))
        assert await link.receive() == Restore(0, 1, normal.hash, b"")
        for number in (1, 2):
            await link.send(message(number, normal, fast=[fast(number, noise(1, 1))]))
            assert await link.receive() == Committed(number)
            assert spool.meta("number") == number
        assert len(told) >= 2


async def test_it_says_when_the_last_message_was_committed(
    spool: Spool, normal: TrustedPolicy
) -> None:
    async with serving(spool, normal) as (link, _, _):
        await link.send(Hello(normal.hash))
        await link.receive()
        await link.send(message(1, normal))
        await link.receive()
        await link.send(Hello(normal.hash))
        assert await link.receive() == Restore(1, 1, normal.hash, b"memory 1", NOW)


async def test_a_full_spool_holds_the_gate_back_until_there_is_room(
    spool: Spool, normal: TrustedPolicy, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(spool, normal, 0) as (link, side, _):
        await link.send(Hello(normal.hash))
        await link.receive()
        await link.send(message(1, normal, fast=[fast(1, noise(1, 1))]))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.7):
                await link.receive()
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert spool.meta("number") == 0
        side._max_bytes = 8 << 20
        assert await link.receive() == Committed(1)


async def test_at_the_end_nothing_is_held_back(spool: Spool, normal: TrustedPolicy) -> None:
    stop = asyncio.Event()
    async with serving(spool, normal, 0, stop) as (link, _, _):
        await link.send(Hello(normal.hash))
        await link.receive()
        await link.send(message(1, normal, fast=[fast(1, noise(1, 1))]))
        stop.set()
        assert await link.receive() == Committed(1)


@pytest.mark.parametrize("number", [0, 1, 3, 1 << 40])
def test_a_message_out_of_turn_is_not_kept(
    spool: Spool, normal: TrustedPolicy, number: int
) -> None:
    sealer = started(spool, normal)
    sealer.commit(message(1, normal, fast=[fast(1, noise(1, 1))]))
    before = spool.tally()
    with pytest.raises(NotOurs):
        sealer.commit(message(number, normal, fast=[fast(2, noise(1, 1))]))
    assert (spool.tally(), spool.meta("number")) == (before, 1)


def test_a_message_under_another_policy_is_not_kept(spool: Spool, normal: TrustedPolicy) -> None:
    other = Released(1, b"o" * 32, {FAST: [fast(1, noise(1, 1))]}, b"memory")
    with pytest.raises(NotOurs):
        started(spool, normal).commit(other)
    assert batches_in(spool) == []


async def test_released_before_hello_is_not_kept(spool: Spool, normal: TrustedPolicy) -> None:
    side = SealedSide(64 << 20, SpoolThread(), _nobody, lambda: None, _known)
    with joined() as (mine, its):
        await mine.send(message(1, normal, fast=[fast(1, noise(1, 1))]))
        with pytest.raises(NotOurs):
            await side.serve(its, asyncio.Event())
    assert batches_in(spool) == []


async def _known(_: float) -> None:
    return


async def _nobody(_: Hello) -> tuple[Sealer, int]:
    raise AssertionError("no hello was sent")


def test_sheets_are_believed_only_as_the_officers_signed_them(normal: TrustedPolicy) -> None:
    signed = tuple(sheet.signed for sheet in normal.sheets)
    officers, cards = [officer(1).public], {PIN: CARD}
    good = Hello(normal.hash, signed)
    assert verified(good, officers, 1, cards).sheets == normal.sheets
    assert verified(good, officers, 1, cards).version == 1
    wrong = [
        (Hello(normal.hash, (signed[0][:-1],)), officers, 1, cards),
        (good, [officer(2).public], 1, cards),
        (good, [officer(1).public, officer(2).public], 2, cards),
        (Hello(b"o" * 32, signed), officers, 1, cards),
        (Hello(normal.hash, signed + signed), officers, 1, cards),
        (good, officers, 1, {b"p" * 32: CARD}),
    ]
    for arguments in wrong:
        with pytest.raises(NotOurs):
            verified(*arguments)


def test_a_stop_is_declared_once_signed_and_nothing_is_sealed_after_it(
    spool: Spool, normal: TrustedPolicy
) -> None:
    started(spool, normal).commit(message(1, normal, fast=[fast(1, noise(1, 1))]))
    for _ in range(2):
        sealer = sealer_of(spool, normal, Ended.STOPPED)
        sealer.restore(1)
    with pytest.raises(BeyondSheet):
        sealer.commit(message(2, normal, fast=[fast(2, noise(1, 1))]))
    sealer.commit(message(2, normal))
    declared = [one for one in sealed_in(spool) if one.content_type == SHEET][1:]
    assert [one.header.gaps for one in declared] == [(Gap(1, 1, REASON_STOPPED),)]
    declared[0].signed.verify(SIGNER.public)
    only = [parse(row.sealed) for row in spool.waiting(0, 10, only_sheets=True)]
    assert [one.content_type for one in only] == [SHEET, SHEET]


def test_an_expiry_is_declared_once_signed_and_nothing_is_sealed_after_it(
    spool: Spool, normal: TrustedPolicy
) -> None:
    started(spool, normal).commit(message(1, normal, fast=[fast(1, noise(1, 1))]))
    for _ in range(3):  # it starts again and again
        sealer = sealer_of(spool, normal, Ended.EXPIRED)
        sealer.restore(1)
    with pytest.raises(BeyondSheet):
        sealer.commit(message(2, normal, fast=[fast(2, noise(1, 1))]))
    sealer.commit(message(2, normal))
    declared = [one for one in sealed_in(spool) if one.content_type == SHEET][1:]
    assert [one.header.gaps for one in declared] == [(Gap(1, 1, REASON_EXPIRED),)]
    declared[0].signed.verify(SIGNER.public)
    # A new epoch says it again, in its own chain; an officer's stop after it is another word.
    sealer_of(spool, normal, Ended.EXPIRED).restore(2)
    sealer_of(spool, normal, Ended.STOPPED).restore(2)
    later = [one.header for one in sealed_in(spool) if one.header.epoch == 2]
    reasons = [[gap.reason for gap in header.gaps] for header in later]
    assert reasons == [[], [REASON_EXPIRED], [REASON_STOPPED]]


def test_an_expiry_that_a_wrong_clock_told_is_taken_back_and_told_again_when_it_comes(
    spool: Spool, normal: TrustedPolicy
) -> None:
    for ended in (Ended.NOT, Ended.EXPIRED, Ended.NOT, Ended.NOT, Ended.EXPIRED):
        sealer_of(spool, normal, ended).restore(1)
    said = [[gap.reason for gap in one.header.gaps] for one in sealed_in(spool)]
    assert said == [[], [REASON_EXPIRED], [], [REASON_EXPIRED]]
