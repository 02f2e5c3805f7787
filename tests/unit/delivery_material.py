"""An agent's spool and its way to a real brain, step by step, for tests of delivery."""

from pathlib import Path

from agent.asking import Asker
from agent.chains import Missing
from agent.giveup import declared, give_up_damaged
from agent.lanes import Lanes, due, load
from protocols.frame import SECOND
from security.answers import Receipt, Standing, answer_digest, answer_kid, read_answer
from tests.small_factory import ENERGY, NOW, SHORT_S, Agent, Brain, Keys, block, signed_policy

KEYS = Keys()
POLICY = signed_policy(KEYS)
SLOT = NOW // SHORT_S


class Line:
    """An agent's way to its brain, as the uplink goes it, without a broker between."""

    def __init__(self, agent: Agent, brain: Brain) -> None:
        self.agent = agent
        self.brain = brain
        self.lanes = Lanes(now_s=lambda: float(NOW))
        self.asker = Asker(
            agent.spool,
            KEYS.address,
            KEYS.signing,
            agent.sealer.streams(),
            lambda: NOW * SECOND,
        )

    def answer(self, signed: bytes) -> None:
        answer = read_answer(signed, KEYS.address, [KEYS.receipt.public])
        if isinstance(answer, Standing):
            verdict = self.asker.take(answer, answer_kid(signed), signed)
            for loss in self.asker.losses(verdict.missing if verdict else []):
                self.deliver(loss)
        elif isinstance(answer, Receipt):
            self.agent.spool.settle(answer.heads, answer.refused, answer_digest(signed), signed)
            for head in answer.heads:
                self.lanes.settled((head.epoch, head.stream), head.sequence, 0.0)

    def deliver(self, message: bytes) -> None:
        for _, signed in self.brain.take(KEYS, message).answers:
            self.answer(signed)

    def ask(self) -> None:
        self.asker.again(0.0)
        self.lanes.reconnected()
        self.deliver(self.asker.ask(0.0))

    def next_messages(self) -> list[bytes]:
        """Return what the uplink would send now, and note it as sent."""
        spool, messages = self.agent.spool, []
        loaded = load(spool, self.lanes.choose(due(spool, self.lanes.cursors()), 0.0))
        damaged = [one.due.id for one in loaded if one.is_damaged]
        if damaged:
            give_up_damaged(spool, damaged)
            self.ask()
            return self.next_messages()
        for one in loaded:
            message = one.sealed
            if one.is_given_up:
                message = loss_of(
                    one.due.chain, one.first, one.due.sequence, one.digest, self.asker
                )
                declared(spool, [one.due.id])
            messages.append(message)
            self.lanes.sent(one.due, 0.0)
        return messages

    def run(self) -> None:
        """Deliver all that waits."""
        self.ask()
        while messages := self.next_messages():
            for message in messages:
                self.deliver(message)


def loss_of(chain: tuple[int, int], first: int, last: int, digest: bytes, asker: Asker) -> bytes:
    (signed,) = asker.losses([Missing(*chain, first, last, digest)])
    return signed


def started(folder: Path) -> Agent:
    agent = Agent(folder, KEYS, POLICY)
    agent.start()
    return agent


def filled(folder: Path, slots: int, first: int = 0) -> Agent:
    agent = started(folder)
    for slot in range(first, first + slots):
        agent.release(block(SLOT + slot, [ENERGY], [5]))
    return agent


def kept_slots(brain: Brain) -> list[int]:
    found: list[int] = []
    for one in brain.ledger.batches(0, 10_000):
        for _, part in brain.opener.blocks(one):
            found += range(part.slot - SLOT, part.slot - SLOT + part.rows)
    return sorted(found)
