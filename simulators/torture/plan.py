"""What is done to a mill, in which order: a pure function of how often, the seed, and what there is."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from protocols.language import tr

KILL: Final = "kill"
FULL_AGENT, FULL_BRAIN = "disk-full-agent", "disk-full-brain"
CUT, FORGET = "long-cut", "forgetful-broker"
OLD_AGENT, OLD_LEDGER = "old-agent", "old-ledger"
DROP: Final = "drop-oldest"
RESERVE, BRIM = "reserve-agent", "brim-brain"
CLOCK: Final = "wrong-clock"
ORDEALS: Final = (
    *(FULL_AGENT, FULL_BRAIN, RESERVE, BRIM),
    *(CUT, FORGET, DROP),
    *(OLD_AGENT, OLD_LEDGER, CLOCK),
)
"""What happens between kills; each once for every `PER_ORDEAL` kills that were begun."""

MAY_LOSE: Final = frozenset({OLD_AGENT, DROP})
"""What may cost values, every one of them declared."""

VICTIMS: Final = ("agent", "gate", "sealed", "aggregator", "broker", "store")
"""Who can be killed: the agent as a whole, either of its sides, and everybody after it."""

PER_ORDEAL: Final = 50
_PAIRS: Final = 0.4
_AT_ONCE: Final = 0.3


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that is done.

    Attributes:
        number: counted from 1.
        what: KILL or one of ORDEALS.
        victims: who is killed, in this order.
        traffic_s: how long all runs undisturbed before it.
        apart_s: between the first kill and the second.
        down_s: how long each victim stays down; of an ordeal, how long it lasts.
        back: victims in the order in which they are started again.
        hard: the harder kind of an ordeal; what that is stands where it is done.
    """

    number: int
    what: str
    victims: tuple[str, ...]
    traffic_s: float
    apart_s: float
    down_s: float
    back: tuple[str, ...]
    hard: bool

    @property
    def name(self) -> str:
        """What it is, for people."""
        return f"{self.what} {'+'.join(self.victims)}" if self.victims else self.what


def make_plan(
    kills: int,
    seed: int,
    victims: Sequence[str] = VICTIMS,
    ordeals: Sequence[str] = ORDEALS,
    pace: float = 1.0,
) -> list[Step]:
    """Return the steps: so many kills, every victim alone first, then alone and in pairs at random.

    Args:
        kills: how many processes are killed; one step kills one or two.
        seed: the same seed gives the same steps.
        victims: who there is.
        ordeals: what else is done.
        pace: how long waits are against those of slots of 2 s.
    """
    chance = random.Random(seed)  # noqa: S311 - repeatable on purpose
    groups = _groups(kills, chance, list(victims))
    rounds = -(-kills // PER_ORDEAL) if kills else 1
    others = [one for _ in range(rounds) for one in chance.sample(list(ordeals), len(ordeals))]
    whats: list[tuple[str, tuple[str, ...]]] = [(KILL, group) for group in groups]
    for at, what in enumerate(others):
        # Spread evenly, so that each comes upon a mill that was killed before.
        whats.insert((at + 1) * len(groups) // (len(others) + 1) + at, (what, ()))
    return [_step(number, *what, chance, pace) for number, what in enumerate(whats, 1)]


def _groups(kills: int, chance: random.Random, victims: list[str]) -> list[tuple[str, ...]]:
    alone = chance.sample(victims, len(victims))[:kills]
    groups: list[tuple[str, ...]] = []
    groups += [(one,) for one in alone]
    left = kills - len(groups)
    while left > 0:
        size = 2 if left > 1 and len(victims) > 1 and chance.random() < _PAIRS else 1
        groups.append(tuple(chance.sample(victims, size)))
        left -= size
    return groups


def _step(
    number: int, what: str, victims: tuple[str, ...], chance: random.Random, pace: float
) -> Step:
    return Step(
        number=number,
        what=what,
        victims=victims,
        traffic_s=round(pace * chance.uniform(0.2, 4.0), 2),
        apart_s=round(pace * chance.uniform(0.0, 0.5), 2),
        down_s=0.0 if chance.random() < _AT_ONCE else round(pace * chance.uniform(0.0, 5.0), 2),
        back=tuple(chance.sample(victims, len(victims))),
        hard=chance.random() < 0.5,
    )


def title(step: Step, steps: int) -> str:
    """Return what is about to be done."""
    hard = tr(" (hard)", "（加重）") if step.hard and not step.victims else ""
    return f"[{step.number}/{steps}] {step.name}{hard}"
