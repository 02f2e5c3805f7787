"""Agent and brain over a channel that loses, doubles and reorders, while either crashes or is put back
from an old copy: what was acknowledged is kept once, and whatever is missing was declared.

The code is the shipped one on both ends (sealer, spool, asker, lanes; inbox, ledger); only sockets and
tasks are left out. `python -m pytest tests/unit/test_hostile_channel.py --hostile 1000` goes further.
"""

import shutil
import sqlite3
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from agent.asking import Asker
from agent.chains import Missing
from agent.giveup import declared, give_up_damaged, give_up_oldest
from agent.lanes import Lanes, Loaded, due, load
from agent.spool import ACKNOWLEDGED, WAITING
from aggregator.ledger import Ledger
from protocols.batch import NO_VALUE
from security.answers import (
    Erasure,
    Receipt,
    Request,
    Standing,
    answer_digest,
    answer_kid,
    read_answer,
)
from security.envelope import parse
from security.statements import Loss, parse_statement
from tests.small_factory import ENERGY, NOW, SHORT_S, Agent, Brain, Keys, block, signed_policy

KEYS = Keys()
POLICY = signed_policy(KEYS)
FIRST = NOW // SHORT_S - 100_000
MANY = 400
FEW = 20


@dataclass(frozen=True)
class Sent:
    """A batch as it was committed into a spool."""

    epoch: int
    stream: int
    sequence: int
    slots: tuple[int, ...]


class Sender:
    """What the sealed side does between its spool and the broker, one step at a time."""

    def __init__(self, folder: Path) -> None:
        self.agent = Agent(folder, KEYS, POLICY)
        sealer = self.agent.sealer
        self.agent.number = sealer.resume(1).number
        self.asker = Asker(
            self.agent.spool, KEYS.address, KEYS.signing, sealer.streams(), lambda: NOW * 10**9
        )
        self.lanes = Lanes(now_s=lambda: float(NOW))

    def send(self, now: float) -> list[bytes]:
        messages = [self.asker.ask(now)] if self.asker.left_s(now) == 0 else []
        if self.asker.cleared:
            spool = self.agent.spool
            loaded = load(spool, self.lanes.choose(due(spool, self.lanes.cursors()), now))
            damaged = [one.due.id for one in loaded if one.is_damaged]
            if damaged:
                give_up_damaged(spool, damaged)
                self.gave_up(now)
                return messages
            for one in loaded:
                messages.append(self.message(one))
                self.lanes.sent(one.due, now)
        if self.lanes.left_s(now) == 0:
            self.lanes.start_over(now)
        return messages

    def gave_up(self, now: float) -> None:
        self.asker.again(now)
        self.lanes.reconnected()

    def message(self, one: Loaded) -> bytes:
        """Return what is sent of a batch; of what was given up, the word that it is lost."""
        if not one.is_given_up:
            return one.sealed
        missing = Missing(*one.due.chain, one.first, one.due.sequence, one.digest)
        (message,) = self.asker.losses([missing])
        declared(self.agent.spool, [one.due.id])
        return message

    def take(self, signed: bytes, now: float) -> list[bytes]:
        """Do what an answer demands; return what is sent at once."""
        answer = read_answer(signed, KEYS.address, [KEYS.receipt.public])
        match answer:
            case Receipt():
                told = answer.heads, answer.refused
                settled = self.agent.spool.settle(*told, answer_digest(signed), signed)
                for head in answer.heads if settled else ():
                    self.lanes.settled((head.epoch, head.stream), head.sequence, now)
            case Request() if self.asker.cleared:
                return self.agent.sealer.sheet_again(answer.sheet_hash)
            case Erasure():
                self.agent.spool.keep_erasure(answer, signed)
            case Standing():
                return self._stand(answer, signed, now)
        return []

    def _stand(self, standing: Standing, signed: bytes, now: float) -> list[bytes]:
        verdict = self.asker.take(standing, answer_kid(signed), signed)
        if verdict is None:
            self.asker.hinted(now, standing, answer_kid(signed))
            return []
        if verdict.again or verdict.missing or verdict.forked:
            self.lanes.reconnected()
        return self.asker.losses(verdict.missing)


class Hostile(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="millgate-hostile-"))
        (self.folder / "brain").mkdir()
        self.now = 0.0
        self.slot = FIRST
        self.up: list[bytes] = []
        self.down: list[bytes] = []
        self.released: dict[int, int] = {}
        self.sent: dict[bytes, Sent] = {}
        self.acknowledged: set[bytes] = set()
        # Acknowledged by a brain that was put back later: to be there again at the end, or declared.
        self.forgotten: set[bytes] = set()
        # Gone with the agent's disk. Where no brain has it either, it is as if it had never been, since
        # the gate's memory went back as well, and counters count on from there.
        self.gone: set[bytes] = set()
        self.copies: set[str] = set()
        self.brain = Brain(self.folder / "brain", KEYS)
        self.sender = Sender(self.folder / "agent")

    def teardown(self) -> None:
        try:
            self.settle()
        finally:
            self.sender.agent.spool.close()
            self.brain.close()
            shutil.rmtree(self.folder)

    # What the factory does.

    @rule(rows=st.integers(1, 3), times=st.integers(1, 3))
    def release(self, rows: int, times: int) -> None:
        for _ in range(times):
            self.commit(rows)

    def commit(self, rows: int) -> None:
        agent = self.sender.agent
        if agent.sealer.epoch_due:
            # The sealed side keeps nothing of this message; the gate begins anew, with later slots.
            agent.number = agent.sealer.resume(1).number
            self.slot += rows
        slots = range(self.slot, self.slot + rows)
        values = [5 * (slot % 997) for slot in slots]
        last = max([row.id for row in agent.spool.waiting(0, MANY)], default=0)
        agent.release(block(self.slot, [ENERGY], values))
        for row in agent.spool.waiting(last, MANY):
            sealed = parse(row.sealed)
            if sealed.header.stream == agent.short:
                header = sealed.header
                place = header.epoch, header.stream, header.sequence
                self.sent[sealed.digest] = Sent(*place, tuple(slots))
        self.released |= dict(zip(slots, values, strict=True))
        self.slot += rows

    @rule(share=st.sampled_from([1, 2, 4]))
    def the_spool_is_full_and_lets_go_of_its_oldest(self, share: int) -> None:
        spool = self.sender.agent.spool
        give_up_oldest(spool, spool.waiting_bytes() // share)
        self.sender.gave_up(self.now)

    @rule(data=st.data())
    def the_disk_turns_a_bit(self, data: st.DataObject) -> None:
        agent = self.sender.agent
        rows = agent.spool.db.execute(
            "SELECT id, sealed FROM batch WHERE status = ? AND stream = ?", (WAITING, agent.short)
        ).fetchall()
        if rows:
            row, sealed = data.draw(st.sampled_from(rows))
            bad = sealed[:-1] + bytes([sealed[-1] ^ 1])
            agent.spool.db.execute("UPDATE batch SET sealed = ? WHERE id = ?", (bad, row))

    # What time and the channel do.

    @rule(seconds=st.floats(0.1, 30.0))
    def time_goes_on(self, seconds: float) -> None:
        self.now += seconds
        self.brain.clock += int(seconds) + 1

    @rule()
    def send(self) -> None:
        self.up += self.sender.send(self.now)

    @rule(rows=st.integers(1, 3), rounds=st.integers(1, 3))
    def all_goes_well_for_a_while(self, rows: int, rounds: int) -> None:
        for _ in range(rounds):
            self.commit(rows)
            self.exchange()

    def exchange(self) -> None:
        """Let everything through that is sent now, and what is answered to it."""
        self.send()
        for _ in range(3):
            up, self.up = self.up, []
            self.to_brain(up)
            down, self.down = self.down, []
            self.to_agent(down)
            self.send()

    @precondition(lambda self: self.up)
    @rule(data=st.data(), together=st.integers(1, 12))
    def deliver_up(self, data: st.DataObject, together: int) -> None:
        order = data.draw(st.permutations(range(min(len(self.up), together))))
        group = [self.up[at] for at in order]
        del self.up[: len(group)]
        self.to_brain(group)

    @precondition(lambda self: self.down)
    @rule(data=st.data(), together=st.integers(1, 6))
    def deliver_down(self, data: st.DataObject, together: int) -> None:
        order = data.draw(st.permutations(range(min(len(self.down), together))))
        group = [self.down[at] for at in order]
        del self.down[: len(group)]
        self.to_agent(group)

    @precondition(lambda self: self.up or self.down)
    @rule(data=st.data())
    def something_is_doubled(self, data: st.DataObject) -> None:
        way = self.up or self.down
        way.append(data.draw(st.sampled_from(way)))

    @precondition(lambda self: self.up)
    @rule(data=st.data())
    def something_is_lost(self, data: st.DataObject) -> None:
        del self.up[data.draw(st.integers(0, len(self.up) - 1))]

    @rule(data=st.data(), times=st.integers(2, 4), heard=st.booleans())
    def only_some_of_what_is_sent_arrives(
        self, data: st.DataObject, times: int, *, heard: bool
    ) -> None:
        """The others are lost: a message may then lie at the brain that came before its turn."""
        if heard:
            self.exchange()
        for _ in range(times):
            self.commit(1)
        self.send()
        arrives = data.draw(st.sets(st.integers(0, max(len(self.up) - 1, 0)), max_size=3))
        up, self.up = self.up, []
        self.to_brain([one for at, one in enumerate(up) if at in arrives])

    @rule(bytes_=st.sampled_from([0, 4000]))
    def the_archive_is_kept_to_its_bound(self, bytes_: int) -> None:
        self.sender.agent.spool.trim(bytes_)

    @rule(both=st.booleans())
    def the_broker_forgets_everything(self, both: bool) -> None:
        self.up.clear()
        if both:
            self.down.clear()
            self.sender.lanes.reconnected()

    def to_brain(self, group: list[bytes]) -> None:
        self.down += [answer for _, answer in self.brain.take(KEYS, *group).answers]

    def to_agent(self, group: list[bytes]) -> None:
        for answer in group:
            self.up += self.sender.take(answer, self.now)
        rows = self.sender.agent.spool.db.execute(
            "SELECT digest FROM batch WHERE status = ? AND is_sheet = 0", (ACKNOWLEDGED,)
        )
        self.acknowledged |= {bytes(row[0]) for row in rows.fetchall()} - self.forgotten

    # What becomes of the two ends.

    @rule()
    def the_agent_crashes(self) -> None:
        self.sender.agent.spool.close()
        self.sender = Sender(self.folder / "agent")

    @rule()
    def the_brain_crashes(self) -> None:
        self.brain.close()
        self.brain.open()

    @precondition(lambda self: self.up)
    @rule(at=st.sampled_from(["keep", "cover", "answer", "count"]))
    def the_brain_crashes_within_its_transaction(self, at: str) -> None:
        """It has taken the messages, but not acknowledged them to the broker, which keeps them."""

        def fail(*_: object) -> None:
            raise sqlite3.OperationalError("disk I/O error")

        before = self.kept()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Ledger, at, fail)
            try:
                self.brain.take(KEYS, *self.up[:4])
            except sqlite3.OperationalError:
                assert self.kept() == before
        self.the_brain_crashes()

    @rule()
    def the_agents_disk_is_copied(self) -> None:
        self.sender.agent.spool.close()
        self.copy("agent")
        self.sender = Sender(self.folder / "agent")

    @rule()
    def the_ledger_is_copied(self) -> None:
        self.brain.close()
        self.copy("brain")
        self.brain.open()

    @precondition(lambda self: "agent" in self.copies)
    @rule(data=st.data())
    def the_agents_old_disk_is_put_back(self, data: st.DataObject) -> None:
        # A broker keeps the order: what the agent asks now comes behind what it sent before.
        self.to_brain(self.up[: data.draw(st.integers(0, len(self.up)))])
        self.up.clear()
        self.sender.agent.spool.close()
        self.put_back("agent")
        self.sender = Sender(self.folder / "agent")
        spool = self.sender.agent.spool
        self.gone |= {
            digest
            for digest, sent in self.sent.items()
            if sent.sequence >= spool.chains(sent.epoch).get(sent.stream, 0)
        }

    @rule(data=st.data(), times=st.integers(2, 4), waits=st.booleans(), heard=st.booleans())
    def an_old_disk_is_put_back_after_some_of_what_it_lacks_arrived(
        self, data: st.DataObject, times: int, *, waits: bool, heard: bool
    ) -> None:
        if waits:
            self.commit(1)
        self.the_agents_disk_is_copied()
        self.only_some_of_what_is_sent_arrives(data, times, heard=heard)
        self.the_agents_old_disk_is_put_back(data)

    @precondition(lambda self: "brain" in self.copies)
    @rule()
    def an_old_ledger_is_put_back(self) -> None:
        self.brain.close()
        self.put_back("brain")
        self.brain.open()
        # Receipts for some of it may still be on their way.
        self.forgotten |= (self.acknowledged | self.receipted()) - self.kept()
        self.acknowledged -= self.forgotten

    def receipted(self) -> set[bytes]:
        """Return the batches that receipts on their way to the agent are for."""
        pinned = [KEYS.receipt.public]
        answers = [read_answer(signed, KEYS.address, pinned) for signed in self.down]
        ends = {
            (head.epoch, head.stream, head.sequence)
            for answer in answers
            if isinstance(answer, Receipt)
            for head in answer.heads
        }
        return {
            digest
            for digest, sent in self.sent.items()
            if any((sent.epoch, sent.stream) == end[:2] and sent.sequence <= end[2] for end in ends)
        }

    def copy(self, end: str) -> None:
        shutil.rmtree(self.folder / f"copy-{end}", ignore_errors=True)
        shutil.copytree(self.folder / end, self.folder / f"copy-{end}")
        self.copies.add(end)

    def put_back(self, end: str) -> None:
        shutil.rmtree(self.folder / end)
        shutil.copytree(self.folder / f"copy-{end}", self.folder / end)

    # What always holds.

    def kept(self) -> set[bytes]:
        rows = self.brain.ledger._db.execute("SELECT digest FROM batch WHERE cells > 0").fetchall()
        assert len(rows) == len(set(rows))
        return {bytes(row[0]) for row in rows}

    @invariant()
    def what_was_acknowledged_is_kept(self) -> None:
        # A copy of the agent may meet a brain that was told before that something is lost.
        assert not [d for d in self.acknowledged - self.kept() if not self.is_lost(self.sent[d])]

    @invariant()
    def the_agents_sum_holds(self) -> None:
        tally = self.sender.agent.spool.tally()
        parts = tally.acknowledged + tally.waiting + tally.refused + tally.given_up
        assert tally.released == parts
        assert min(tally.acknowledged, tally.waiting, tally.refused) >= 0

    @invariant()
    def nobody_is_taken_for_a_fraud(self) -> None:
        assert not self.brain.ledger.record.quarantined(1)

    # The end: the channel is good again, and everything comes to rest.

    def settle(self) -> None:
        for _ in range(60):
            self.time_goes_on(15.0)
            self.commit(1)
            self.exchange()
            agent = self.sender.agent
            if not agent.spool.tally().waiting_batches and not agent.sealer.epoch_due:
                break
        self.check()

    def check(self) -> None:
        tally = self.sender.agent.spool.tally()
        assert (tally.waiting_batches, tally.refused) == (0, 0)
        values = self.values()
        assert values.items() <= self.released.items()
        kept = self.kept()
        stray = set(self.released) - set(values)
        explained = {
            slot
            for digest, sent in self.sent.items()
            if digest not in kept and (digest in self.gone or self.is_declared(sent))
            for slot in sent.slots
        }
        assert stray <= explained
        told = {digest for digest in self.forgotten if self.is_declared(self.sent[digest])}
        assert self.forgotten <= kept | told | self.gone
        self.no_hole_in_any_chain()
        # The agent may count as acknowledged what the brain holds as lost, by a word from before its
        # disk was put back; never the other way round.
        lost = sum(
            len(sent.slots)
            for digest, sent in self.sent.items()
            if sent.epoch == self.epoch and digest not in kept | self.gone and self.is_lost(sent)
        )
        assert self.brain.ledger.stored(1).get(self.epoch, 0) + lost == tally.released
        assert tally.given_up <= lost

    @property
    def epoch(self) -> int:
        return int(self.sender.agent.spool.meta("epoch"))

    def values(self) -> dict[int, int]:
        """What the ledger holds of every slot; none of them twice."""
        found: dict[int, int] = {}
        for one in self.brain.ledger.batches(0, 100_000):
            for _, part in self.brain.opener.blocks(one):
                assert (part.quality != NO_VALUE).all()
                slots = range(part.slot, part.slot + part.rows)
                mine = dict(zip(slots, part.mantissa[:, 0].tolist(), strict=True))
                assert not found.keys() & mine.keys()
                found |= mine
        return found

    def is_declared(self, sent: Sent) -> bool:
        """Whether its place is behind the end of an epoch that was left, or was declared lost."""
        return self.is_lost(sent) or sent.epoch < self.epoch

    def is_lost(self, sent: Sent) -> bool:
        """Whether the brain holds the signed word that this place is lost."""
        return any(
            (loss.epoch, loss.stream) == (sent.epoch, sent.stream)
            and loss.first <= sent.sequence <= loss.last
            for loss in self.losses()
        )

    def losses(self) -> list[Loss]:
        signed = self.brain.ledger.record.losses(1, 0, NOW * 2)
        found = [parse_statement(one)[1] for one in signed]
        return [loss for loss in found if isinstance(loss, Loss)]

    def no_hole_in_any_chain(self) -> None:
        """Every place of every chain is kept, or declared lost, signed."""
        db = self.brain.ledger._db
        for epoch, stream, following in db.execute(
            "SELECT epoch, stream, next FROM chain WHERE agent = 1"
        ).fetchall():
            rows = db.execute(
                "SELECT sequence FROM batch WHERE epoch = ? AND stream = ?", (epoch, stream)
            ).fetchall()
            here = {row[0] for row in rows}
            for loss in self.losses():
                if (loss.epoch, loss.stream) == (epoch, stream):
                    here |= set(range(loss.first, loss.last + 1))
            assert here == set(range(following))


@pytest.mark.timeout(900)
def test_what_is_acknowledged_is_kept_once_and_what_is_missing_was_declared(histories: int) -> None:
    run_state_machine_as_test(
        Hostile,
        settings=settings(
            max_examples=histories,
            stateful_step_count=40,
            deadline=None,
            # The suite goes the same ways each time; who asks for more goes new ones.
            derandomize=histories <= FEW,
            suppress_health_check=list(HealthCheck),
        ),
    )
