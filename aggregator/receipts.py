"""Receipts are kept within a bound: all for a quarter of a year, then what evidence still needs.

A receipt says how far chains had come, so a later one covers what an earlier one said of the same
chain. Of what is older than `KEPT_DAYS`, the last receipt of every chain and hour stays, and every
receipt that names a refusal.
"""

import logging
from typing import Final

from aggregator.ledger import Ledger
from protocols.language import tr
from protocols.strict_cbor import Malformed
from protocols.topics import Address
from security.answers import Receipt, read_answer
from security.keys import BadSignature, VerifyKey

KEPT_DAYS: Final = 90

_DAY_S: Final = 86_400
_HOUR_S: Final = 3600
_AT_ONCE: Final = 500

_log = logging.getLogger(__name__)

Chain = tuple[int, int, int]
"""Agent, epoch, stream."""


class Thinning:
    """Goes through old receipts once, from the oldest on; what it has seen it does not look at again.

    Args:
        key: the brain's receipt key; what another signed is left alone.
    """

    def __init__(self, ledger: Ledger, key: VerifyKey) -> None:
        self._ledger = ledger
        self._key = key
        self._seen = 0
        self._last: dict[Chain, tuple[int, int]] = {}
        self._needed: dict[int, int] = {}
        self._addresses: dict[int, Address] = {}

    def go_on(self, now_s: int) -> int:
        """Delete what may go by now; return how many receipts.

        Raises:
            LedgerError: a part is deleted; call again later.
        """
        before_s = (now_s - KEPT_DAYS * _DAY_S) // _HOUR_S * _HOUR_S
        total = 0
        while found := self._ledger.record.old_receipts(self._seen, before_s, _AT_ONCE):
            gone = [
                number
                for row in found
                for number in self._superseded(row[0], *self._read(*row[1:]))
            ]
            with self._ledger.transaction():
                self._ledger.record.forget_receipts(gone)
            self._seen = found[-1][0]
            total += len(gone)
        if total:
            _log.info(
                "%s",
                tr(
                    f"{total} receipt(s) older than {KEPT_DAYS} days are deleted; the last of every "
                    "chain and hour stays",
                    f"已删除 {total} 份早于 {KEPT_DAYS} 天的回执；每条链每小时的最后一份保留",
                ),
            )
        return total

    def _read(self, agent: int, issued_s: int, signed: bytes) -> tuple[int, list[Chain], int]:
        """Return the hour of a receipt, the chains that it names, and how many of them count.

        One that must stay is needed whatever comes later: none counts.
        """
        if agent not in self._addresses:
            self._addresses[agent] = self._ledger.address(agent)
        try:
            answer = read_answer(signed, self._addresses[agent], [self._key])
        except (Malformed, BadSignature):
            return issued_s // _HOUR_S, [], 0
        if not isinstance(answer, Receipt):
            return issued_s // _HOUR_S, [], 0
        chains = [(agent, head.epoch, head.stream) for head in answer.heads]
        return issued_s // _HOUR_S, chains, 0 if answer.refused else len(chains)

    def _superseded(self, number: int, hour: int, chains: list[Chain], needed: int) -> list[int]:
        """Note a receipt; return the earlier ones that are needed for no chain any more."""
        gone = []
        for chain in chains:
            before = self._last.get(chain)
            self._last[chain] = hour, number
            if before is not None and before[0] == hour and before[1] in self._needed:
                self._needed[before[1]] -= 1
                if not self._needed[before[1]]:
                    del self._needed[before[1]]
                    gone.append(before[1])
            elif before is not None:
                # It stays, as the last of its hour.
                self._needed.pop(before[1], None)
        if needed:
            self._needed[number] = needed
        return gone
