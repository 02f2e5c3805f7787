"""Pseudonymise: instead of a value, a pseudonym leaves that only the firm's gate can compute.

A pseudonym is HMAC-SHA256 of the value under a key that is derived from the gate's own key, cut to 52
bits. It depends on the consumer, the point's number and the turn: the same value gets another pseudonym at
another consumer or point, and after each turn. Nobody without the key can try values out.
"""

import hashlib
import hmac
from collections.abc import Sequence
from typing import Final

import numpy as np

from protocols import strict_cbor
from protocols.frame import Flags, Ints
from security.policy.compiled import LARGEST_PSEUDONYM, Rule
from security.secret import Secret

_BYTES: Final = 8
_MOST_KNOWN: Final = 100_000


class Pseudonyms:
    """The pseudonyms of one lane's points.

    Attributes:
        at: positions of the points that have them.
    """

    def __init__(self, rules: Sequence[Rule], key: Secret[bytes] | None) -> None:
        self.at = np.array([at for at, rule in enumerate(rules) if rule.pseudonym_s], np.intp)
        self._rules = {at: rules[at] for at in self.at.tolist()}
        self._key = Secret(_derived(key)) if key is not None and len(self.at) else None
        self._known: dict[tuple[int, int, int], int] = {}

    def replace(self, slots: Ints, mantissa: Ints, valid: Flags) -> Flags:
        """Replace values in place; return what is still valid.

        Without a key nothing of these points is.

        Args:
            slots: shape () or (k,).
            mantissa, valid: shape (p,) or (k, p).
        """
        if not len(self.at):
            return valid
        kept = valid.copy()
        kept[..., self.at] &= self._key is not None
        rows = zip(
            np.atleast_1d(slots).tolist(),
            np.atleast_2d(mantissa),
            np.atleast_2d(kept),
            strict=True,
        )
        for slot, row, may in rows:
            for at in self.at.tolist():
                row[at] = self._of(at, slot, int(row[at])) if may[at] else 0
        return kept

    def _of(self, at: int, slot: int, value: int) -> int:
        rule = self._rules[at]
        turn = slot * rule.window_s // rule.pseudonym_s
        known = self._known.get((at, turn, value))
        if known is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            known = self._known[at, turn, value] = self._computed(rule, turn, value)
        return known

    def _computed(self, rule: Rule, turn: int, value: int) -> int:
        if self._key is None:
            raise ValueError("no key for pseudonyms")
        # The stream stands for the consumer: it is made of its key and the slot length.
        said = strict_cbor.encode(["mg1/pseudonym", rule.stream, rule.number, turn, value])
        digest = hmac.digest(self._key.reveal(), said, hashlib.sha256)
        return int.from_bytes(digest[:_BYTES], "big") & LARGEST_PSEUDONYM


def _derived(key: Secret[bytes]) -> bytes:
    return hashlib.sha256(b"mg1/pseudonym-key\x00" + key.reveal()).digest()
