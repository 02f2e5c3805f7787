"""Whether an agent is believed: decided here for every page, table, metric and command."""

from enum import StrEnum

from aggregator.config import Factory
from aggregator.record import REVOKED
from protocols.language import tr


class Trust(StrEnum):
    """Whether messages of an agent are taken.

    `good`: they are. `quarantined`: two were signed for one place, so none is until a person has looked.
    `revoked`: its certificates were, or its officers have ended all its keys; none is, for good.
    """

    GOOD = "good"
    QUARANTINED = "quarantined"
    REVOKED = "revoked"


def trust_of(quarantine: str, factory: Factory | None) -> Trust:
    """Return whether an agent is believed now.

    Args:
        quarantine: see `Record.quarantine_of`; empty where the ledger does not know the agent.
        factory: what its card and the officers' list of keys say; None where no card is here.
    """
    if quarantine == REVOKED or (factory is not None and _all_ended(factory)):
        return Trust.REVOKED
    return Trust.QUARANTINED if quarantine else Trust.GOOD


def _all_ended(factory: Factory) -> bool:
    """Tell whether the officers' newest list has no key that still counts."""
    known = factory.key_list
    return known is not None and all(record.until is not None for record in known.records)


def in_words(trust: Trust) -> str:
    """Return it for a terminal."""
    return {
        Trust.GOOD: tr("good", "正常"),
        Trust.QUARANTINED: tr("QUARANTINED", "已隔离"),
        Trust.REVOKED: tr("REVOKED", "已吊销"),
    }[trust]
