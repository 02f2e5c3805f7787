"""A policy as it rests: its head, and the rest as small bytes until somebody asks for it.

Ten thousand rules as objects take twenty megabytes; as compressed bytes, a tenth of one. The gate needs
them when it is made, and again only when it starts over.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import cbor2
import zstandard

from protocols.settings import share_parts
from security.policy.compiled import MAX_COMPILED, CompiledPolicy, Rule, to_bytes

_AT_ONCE: Final = 256
_FIELDS: Final = tuple(Rule.model_fields)


@dataclass(frozen=True, slots=True)
class PackedPolicy:
    """A policy that was read and found right.

    Attributes:
        head: the policy without what there is many of: rules, derivations and what only the lint needs.
        rest: all of it but the rules, packed.
        rules: the rules, some in each piece, packed by their values in the order of the fields.
    """

    head: CompiledPolicy
    rest: bytes
    rules: tuple[bytes, ...]

    def whole(self) -> CompiledPolicy:
        """Return all of it; takes a moment for each thousand rules."""
        # Not read strictly again: nobody else has touched these bytes.
        rest = CompiledPolicy.model_validate(cbor2.loads(_unpacked(self.rest)))
        rules = list(self._each())
        share_parts(rules)
        return rest.model_copy(update={"rules": rules})

    def _each(self) -> Iterator[Rule]:
        """Yield the rules; only a piece at a time is there twice."""
        words: dict[str, str] = {}
        for piece in self.rules:
            for row in cbor2.loads(_unpacked(piece)):
                shared = (words.setdefault(v, v) if isinstance(v, str) else v for v in row)
                yield Rule.model_validate(dict(zip(_FIELDS, shared, strict=True)))


def pack(policy: CompiledPolicy) -> PackedPolicy:
    """Return a policy as it rests."""
    rules = policy.rules
    pieces = (rules[at : at + _AT_ONCE] for at in range(0, len(rules), _AT_ONCE))
    head: dict[str, list[object]] = {
        name: [] for name in ("rules", "derived", "secrets", "relations", "retired")
    }
    return PackedPolicy(
        policy.model_copy(update=head),
        _packed(to_bytes(policy.model_copy(update={"rules": []}))),
        tuple(
            _packed(cbor2.dumps([[getattr(rule, name) for name in _FIELDS] for rule in piece]))
            for piece in pieces
        ),
    )


def _packed(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=3).compress(data)


def _unpacked(data: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompress(data, max_output_size=MAX_COMPILED)
