"""Notes in the ledger which agents are revoked, where the inbox and everybody who tells of agents look."""

import time

from aggregator.authority import open_joining
from aggregator.config import AggregatorConfig
from aggregator.joining import NAME
from aggregator.ledger import Ledger
from aggregator.record import REVOKED
from protocols.frame import SECOND
from protocols.topics import Address


def take_nothing_more(ledger: Ledger, address: Address) -> None:
    """Note in the ledger that an agent is revoked; the running aggregator finds it with the next message."""
    with ledger.transaction():
        ledger.record.quarantine(ledger.agent(address), time.time_ns() // SECOND, REVOKED)


def note_revocations(config: AggregatorConfig, ledger: Ledger) -> None:
    """Note again who is revoked: a ledger that was put back may be older than that.

    Raises:
        JoiningFault: when the file of who joined cannot be read.
    """
    if not config.ledger.with_name(NAME).exists():
        return
    joining = open_joining(config)
    try:
        revoked = set(joining.revoked_agents())
    finally:
        joining.close()
    for address in config.factories():
        if address.agent in revoked:
            take_nothing_more(ledger, address)
