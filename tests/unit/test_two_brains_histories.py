"""Two brains, either of them away at any time, and an agent whose disk is put back: whichever answers
first or late, nobody is taken for a fraud, and what one of them lacks was lost by its own word only.
"""

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, cast

import pytest

from agent.spool import LOST
from aggregator.alarms import EPOCH_UNEXPLAINED, EQUIVOCATION
from protocols.mqtt import Mqtt
from security.envelope import parse
from security.statements import Loss, parse_statement
from tests.small_factory import Brain
from tests.unit.delivery_material import kept_slots
from tests.unit.test_two_brains import KEYS, OTHER, SHEETS, SHORT, Mill


class Sent(NamedTuple):
    """A message as it was sealed; sheets have no slot."""

    brain: int
    epoch: int
    stream: int
    sequence: int
    slot: int | None


class World:
    """An agent, its two brains, and a broker that keeps for each what it has not heard yet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("main", "other", "agent", "copy"):
            (folder / name).mkdir()
        self.brains = Brain(folder / "main", KEYS), Brain(folder / "other", KEYS, name=OTHER)
        self.held: tuple[list[bytes], list[bytes]] = ([], [])
        self.mill = Mill(folder / "agent")
        self.sent: dict[bytes, Sent] = {}
        self.gone: set[bytes] = set()
        self.slot = 0
        self.note(None)
        self.copy()

    def close(self) -> None:
        self.mill.agent.spool.close()
        for brain in self.brains:
            brain.close()

    def do(self, deed: str) -> None:
        """Release for the one or the other; speak with either or both; copy the disk; put it back; start anew."""
        match deed:
            case "energy" | "power":
                self.release(deed)
            case "main" | "other" | "both":
                present = {"main": (0,), "other": (1,), "both": (0, 1)}[deed]
                asyncio.run(self.talk(present))
            case "copy":
                self.copy()
            case "back":
                self.put_back()
            case "restart":
                self.restart()

    def release(self, what: str) -> None:
        if self.mill.agent.sealer.epoch_due:
            self.mill.begin_the_epoch_that_is_due()
            self.note(None)
        self.slot += 1
        (self.mill.energy if what == "energy" else self.mill.power)(self.slot)
        self.note(self.slot)

    def note(self, slot: int | None) -> None:
        """Remember the messages that were sealed since the last time."""
        for row in self.mill.agent.spool.waiting(0, 1000):
            sealed = parse(row.sealed)
            header = sealed.header
            if sealed.digest not in self.sent:
                brain = int(header.stream in (SHORT, SHEETS))
                place = header.epoch, header.stream, header.sequence
                whose = slot if header.window != (0, 0) else None
                self.sent[sealed.digest] = Sent(brain, *place, whose)

    async def talk(self, present: tuple[int, ...]) -> None:
        """Connect, and let these brains hear all until nothing is left to say."""
        mill, link = self.mill, cast("Mqtt", self.mill)
        # A hint counts once in ten seconds; between two connections these have passed.
        mill.asker._hint_s = 0.0
        await mill.uplink._begin(link)
        while True:
            await mill.uplink._speak(link)
            for held in self.held:
                held.extend(mill.sent)
            mill.sent.clear()
            if not any(self.held[at] for at in present):
                return
            for at in present:
                heard = self.held[at][:]
                self.held[at].clear()
                for _, answer in self.brains[at].take(KEYS, *heard).answers:
                    await mill.uplink._take(link, answer)

    def copy(self) -> None:
        spool = self.mill.agent.spool
        spool.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        shutil.copy(self.folder / "agent" / "spool.db", self.folder / "copy" / "spool.db")

    def put_back(self) -> None:
        self.mill.agent.spool.close()
        for old in (self.folder / "agent").iterdir():
            old.unlink()
        shutil.copy(self.folder / "copy" / "spool.db", self.folder / "agent" / "spool.db")
        self.mill = Mill(self.folder / "agent")
        spool = self.mill.agent.spool
        self.gone |= {
            digest
            for digest, sent in self.sent.items()
            if sent.sequence >= spool.chains(sent.epoch).get(sent.stream, 0)
        }
        self.note(None)

    def restart(self) -> None:
        self.mill.agent.spool.close()
        self.mill = Mill(self.folder / "agent")
        self.note(None)

    def settle(self) -> None:
        """Be together, and send something to each, until nothing waits any more."""
        for _ in range(12):
            for deed in ("energy", "power", "both"):
                self.do(deed)
            agent = self.mill.agent
            if not agent.spool.tally().waiting_batches and not agent.sealer.epoch_due:
                return

    def check(self) -> None:
        tally = self.mill.agent.spool.tally()
        assert (tally.waiting_batches, tally.refused) == (0, 0)
        for at, brain in enumerate(self.brains):
            record = brain.ledger.record
            assert not record.quarantined(1)
            own = {
                one.kind for one in record.alarms(1) if (one.stream in (SHORT, SHEETS)) == bool(at)
            }
            assert not own & {EQUIVOCATION, EPOCH_UNEXPLAINED}
            self.check_brain(at, brain)

    def check_brain(self, at: int, brain: Brain) -> None:
        db = brain.ledger._db
        kept = {bytes(row[0]) for row in db.execute("SELECT digest FROM batch").fetchall()}
        mine = {digest: sent for digest, sent in self.sent.items() if sent.brain == at}
        slots = kept_slots(brain)
        assert slots == sorted(
            sent.slot for digest, sent in mine.items() if digest in kept and sent.slot is not None
        )
        assert len(slots) == len(set(slots))
        lost = self.losses(brain)
        for digest in mine.keys() - kept - self.gone:
            sent = mine[digest]
            place = sent.epoch, sent.stream, sent.sequence
            if place in lost or self.is_never_sent(sent, digest):
                # Only a brain that has what this disk does not know can cost what was meant for it.
                assert kept & mine.keys() & self.gone, f"lost for nothing: {sent}"
            else:
                pytest.fail(f"missing, and nobody said so: {sent}")
        for epoch, stream, following in db.execute(
            "SELECT epoch, stream, next FROM chain WHERE agent = 1"
        ).fetchall():
            here = {row[2] for row in lost if row[:2] == (epoch, stream)} | {
                row[0]
                for row in db.execute(
                    "SELECT sequence FROM log WHERE epoch = ? AND stream = ? AND kind IN (0, 1)",
                    (epoch, stream),
                )
            }
            assert here >= set(range(following))

    def losses(self, brain: Brain) -> set[tuple[int, int, int]]:
        found = set()
        for signed in brain.ledger.record.losses(1, 0, 1 << 40):
            loss = parse_statement(signed)[1]
            assert isinstance(loss, Loss)
            places = range(loss.first, loss.last + 1)
            found |= {(loss.epoch, loss.stream, sequence) for sequence in places}
        return found

    def is_never_sent(self, sent: Sent, digest: bytes) -> bool:
        """Whether it waited in an epoch that its own brain's word has ended."""
        row = self.mill.agent.spool.db.execute(
            "SELECT status FROM batch WHERE digest = ?", (digest,)
        ).fetchone()
        over = sent.epoch < int(self.mill.agent.spool.meta("epoch"))
        return over and (row is None or row[0] == LOST)


@contextmanager
def world() -> Iterator[World]:
    with tempfile.TemporaryDirectory(prefix="millgate-brains-") as folder:
        made = World(Path(folder))
        try:
            yield made
        finally:
            made.close()


LATE = [
    "energy",
    "power",
    "both",
    "copy",
    "power",
    "energy",
    "both",
    "back",
    "energy",
    "power",
    "main",
]
"""Both brains have more than the disk that was put back; only the first has said so yet."""


@pytest.mark.parametrize(
    "then",
    [
        ["energy", "main", "both"],
        ["power", "both"],
        ["power", "power", "main", "power", "both"],
        ["power", "main", "copy", "energy", "main", "back", "energy", "main", "power"],
        ["power", "restart", "main", "restart", "other", "power"],
    ],
    ids=["nothing-sealed-since", "one-message", "more", "two-epochs", "restarts"],
)
def test_a_brain_that_answers_late_gets_all_but_what_its_own_word_cost(then: list[str]) -> None:
    play([*LATE, *then])


@pytest.mark.parametrize("then", [[], ["energy", "energy"]], ids=["nothing-sealed", "two-messages"])
def test_a_late_brain_that_has_a_chain_which_the_disk_never_had_is_told_where_it_ended(
    then: list[str],
) -> None:
    play(["power", "energy", "both", "back", "power", "other", *then])


def test_a_chain_with_nothing_in_the_newest_epoch_ended_in_the_one_before() -> None:
    play(["power", "other", "back", "both", "energy", "other", "back"])


def test_what_waits_for_a_brain_is_not_lost_by_the_word_of_another() -> None:
    play(["power", "copy", "energy", "main", "back", "power", "energy", "main", "power"])


def play(deeds: list[str]) -> None:
    with world() as made:
        for deed in deeds:
            made.do(deed)
        made.settle()
        made.check()
