"""A factory with one agent and a brain that knows it: real keys, a signed policy, real messages.

`Agent` seals as the shipped sealed side does; `Forger` holds the same keys and seals whatever a
test asks of it, so that every check of the brain meets a message that passes all checks before.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import numpy as np

from agent.released import Released
from agent.sealedside import Sealer
from agent.spool import Spool
from aggregator.config import Factory
from aggregator.expiry import Expiry
from aggregator.inbox import Inbox, Opened, Opener, Outcome, sheet_pin
from aggregator.ledger import Ledger
from protocols import batch
from protocols.batch import NO_VALUE, Block
from protocols.topics import Address
from security.answers import Answer, Erasure, Receipt, Request, Standing, read_answer
from security.cards import AgentCard, BrainCard
from security.envelope import (
    BATCH,
    SHEET,
    Header,
    commitment,
    digest,
    genesis,
    pad,
    right_hash,
    seal,
)
from security.keys import AttestationKey, OpeningKey, SealingKey, SigningKey
from security.policy.bundle import TrustedPolicy, read_bundle, sign_bundle
from security.policy.compiled import pack_sheet
from security.policy.compiler import compile_policy
from security.policy.language import PolicyText
from security.policy.streams import stream_id
from security.secret import Secret

NOW: Final = 1_770_000_000
"""The wall clock of every small factory, seconds since 1970 UTC."""

SHORT_S, LONG_S = 5, 900
PAD: Final = 256
ENERGY, POWER, STATE, HOURLY = 1, 2, 10, 30
"""Point numbers; the state takes 10 to 18. HOURLY is alone in the slow stream."""

ENERGY_STEP: Final = 5
"""Energy is released in multiples of 0.05 kWh: mantissas in 0.01 kWh are multiples of 5."""


def signing_key(seed: str) -> SigningKey:
    return SigningKey(Secret(hashlib.sha256(f"sign {seed}".encode()).digest()))


def attestation_key(seed: str) -> AttestationKey:
    return AttestationKey(Secret(hashlib.sha256(f"attest {seed}".encode()).digest()))


def opening_key(seed: str) -> OpeningKey:
    return OpeningKey(Secret(hashlib.sha256(f"open {seed}".encode()).digest()))


def block(
    slot: int,
    numbers: Sequence[int],
    mantissa: Any,
    quality: Any = None,
    spans: dict[int, int] | None = None,
) -> Block:
    """Return a block; `spans` maps cell positions to how many slots they count over."""
    values = np.array(mantissa, np.int64).reshape(-1, len(numbers))
    codes = np.zeros(values.shape, np.uint8)
    if quality is not None:
        codes[:] = np.array(quality, np.uint8).reshape(values.shape)
    cells = sorted(spans or {})
    return Block(
        slot=slot,
        numbers=np.array(numbers, np.int64),
        mantissa=np.where(codes == NO_VALUE, 0, values),
        quality=codes,
        span_cells=np.array(cells, np.int64),
        spans=np.array([(spans or {})[cell] for cell in cells], np.int64),
    )


@dataclass
class Keys:
    """All keys of one factory and its brain."""

    name: str = "mill"
    signing: SigningKey = field(init=False)
    attestation: AttestationKey = field(init=False)
    officers: list[SigningKey] = field(init=False)
    audit: OpeningKey = field(init=False)
    encryption: OpeningKey = field(init=False)
    receipt: SigningKey = field(init=False)

    def __post_init__(self) -> None:
        self.signing = signing_key(f"{self.name} agent")
        self.attestation = attestation_key(f"{self.name} agent")
        self.officers = [signing_key(f"{self.name} officer {at}") for at in range(2)]
        self.audit = opening_key(f"{self.name} audit")
        # All factories have the same brain.
        self.encryption = opening_key("brain")
        self.receipt = signing_key("brain")

    @property
    def address(self) -> Address:
        ids = hashlib.sha256(self.name.encode()).digest()
        return Address(ids[:16], ids[16:])

    @property
    def brain_card(self) -> BrainCard:
        return BrainCard(
            card="millgate-brain/1",
            name="brain",
            encryption_key=self.encryption.public,
            receipt_key=self.receipt.public,
        )

    @property
    def agent_card(self) -> AgentCard:
        return AgentCard(
            card="millgate-agent/1",
            factory=self.address.factory,
            agent=self.address.agent,
            signing_key=self.signing.public,
            attestation_key=self.attestation.public,
            officers=[key.public for key in self.officers],
            threshold=2,
        )

    @property
    def pin(self) -> bytes:
        return sheet_pin(self.encryption.public.public)


def policy_source(keys: Keys, version: int = 1, energy_slot_s: int = SHORT_S) -> dict[str, Any]:
    """Return a policy as its file says it."""
    source: dict[str, Any] = {"address": "holding:0", "type": "uint32"}
    released = {
        "consumer": "brain",
        "equipment": "meter-1",
        "classes": {"raw": "general-2", "released": "general-1"},
    }

    def release(aggregate: str, slot: int, grid: str) -> dict[str, Any]:
        return {"aggregate": aggregate, "slot": f"{slot}s", "round": grid}

    energy = {"unit": "kWh", "measurand": "energy.active_import", **source, **released}
    points = [
        {
            **energy,
            "device": "meter",
            "point": "energy",
            "number": ENERGY,
            "role": "main",
            "release": release("delta", energy_slot_s, "0.05"),
        },
        {
            **source,
            **released,
            "device": "meter",
            "point": "power",
            "unit": "kW",
            "measurand": "power.active",
            "number": POWER,
            "release": release("last", SHORT_S, "0.1"),
        },
        {
            **source,
            **released,
            "device": "machine",
            "point": "state",
            "unit": "1",
            "measurand": "machine.state",
            "state_model": "operating",
            "number": STATE,
            "equipment": "machine-1",
            "release": release("state", SHORT_S, "0.5"),
        },
        {
            **energy,
            "device": "meter",
            "point": "total",
            "equipment": "meter-2",
            "number": HOURLY,
            "role": "sub",
            "release": release("delta", LONG_S, "0.01"),
        },
    ]
    pin = keys.pin.hex()
    receipt_pin = hashlib.sha256(keys.receipt.public.public).hexdigest()
    return {
        "policy": "mg-policy/1",
        "version": version,
        "valid_from": "2020-01-01T00:00:00Z",
        "valid_until": "2040-01-01T00:00:00Z",
        "consumer": [
            {
                "id": "brain",
                "encryption_key": f"sha256:{pin}",
                "receipt_key": f"sha256:{receipt_pin}",
                "purpose": "carbon-emission",
                "right": "contract 7",
                "retention_days": 365,
                "pad": PAD,
            }
        ],
        "point": points,
    }


def policy_text(keys: Keys, version: int = 1, energy_slot_s: int = SHORT_S) -> PolicyText:
    return PolicyText.model_validate(policy_source(keys, version, energy_slot_s))


def signed_policy(keys: Keys, version: int = 1) -> TrustedPolicy:
    bundle = sign_bundle(compile_policy(policy_text(keys, version)), keys.officers)
    return read_bundle(bundle, [key.public for key in keys.officers], 2)


class Agent:
    """The sealed side of one agent, as shipped, on a spool of its own."""

    def __init__(
        self,
        folder: Path,
        keys: Keys,
        policy: TrustedPolicy | None = None,
        *more: BrainCard,
    ) -> None:
        self.keys = keys
        self.policy = policy or signed_policy(keys)
        self.spool = Spool(folder / "spool.db")
        self.sealer = Sealer(
            self.spool,
            self.policy,
            {sheet_pin(card.encryption_key.public): card for card in (keys.brain_card, *more)},
            keys.signing,
            keys.audit.public,
            keys.address,
            lambda: NOW * 10**9,
        )
        self.number = 0

    @property
    def short(self) -> int:
        return stream_id(self.keys.pin, SHORT_S)

    @property
    def long(self) -> int:
        return stream_id(self.keys.pin, LONG_S)

    def start(self, epoch: int = 1) -> None:
        self.number = self.sealer.restore(epoch).number

    def release(self, *blocks: Block, stream: int | None = None) -> None:
        """Commit blocks of the fast stream, or of the one named, as one message."""
        self.number += 1
        streams = {stream or self.short: list(blocks)}
        self.sealer.commit(Released(self.number, self.policy.hash, streams, b"memory"))

    def waiting(self) -> list[bytes]:
        return [row.sealed for row in self.spool.waiting(0, 1000)]

    def settle(self, signed: bytes) -> int:
        """Take an answer as the uplink does; return how many messages no longer wait."""
        answer = read_answer(signed, self.keys.address, [self.keys.receipt.public])
        if isinstance(answer, Request):
            self.sealer.sheet_again(answer.sheet_hash)
            return 0
        if isinstance(answer, Erasure):
            self.spool.keep_erasure(answer, signed)
            return 0
        if isinstance(answer, Standing):
            return 0
        return self.spool.settle(answer.heads, answer.refused, digest(signed))


class Forger:
    """Seals anything, with the agent's true keys, as the next message of its chains."""

    def __init__(self, keys: Keys, policy: TrustedPolicy | None = None) -> None:
        self.keys = keys
        self.policy = policy or signed_policy(keys)
        self.sheet = self.policy.sheets[0]
        self.ends: dict[tuple[int, int], tuple[int, bytes]] = {}

    @property
    def short(self) -> int:
        return stream_id(self.keys.pin, SHORT_S)

    @property
    def long(self) -> int:
        return stream_id(self.keys.pin, LONG_S)

    def sheet_message(self, signed: bytes | None = None, **changes: Any) -> bytes:
        changes = {"stream": stream_id(self.keys.pin, 0), "window": (0, 0), **changes}
        content = pack_sheet(self.sheet.signed if signed is None else signed)
        return self.seal(content, kind=SHEET, **changes)

    def batch(self, *blocks: Block, **changes: Any) -> bytes:
        """Seal blocks with a header that fits them, but for what is changed."""
        window_s = LONG_S if changes.get("stream") == self.long else SHORT_S
        start = min(one.slot for one in blocks) * window_s
        end = max(one.slot + one.rows for one in blocks) * window_s
        return self.seal(batch.encode(blocks), **{"window": (start, end), **changes})

    def seal(
        self,
        content: bytes,
        *,
        kind: str = BATCH,
        unit: int = PAD,
        padded: bytes | None = None,
        signer: SigningKey | None = None,
        recipients: Sequence[SealingKey] | None = None,
        advance: bool = True,
        **changes: Any,
    ) -> bytes:
        stream = changes.pop("stream", self.short)
        epoch = changes.pop("epoch", 1)
        start = (0, genesis(self.keys.address, epoch, stream))
        sequence, previous = self.ends.get((epoch, stream), start)
        padded = pad(content, unit) if padded is None else padded
        keys = recipients or [self.keys.encryption.public, self.keys.audit.public]
        sheet = self.sheet.sheet
        header = Header(
            factory=self.keys.address.factory,
            agent=self.keys.address.agent,
            epoch=epoch,
            stream=stream,
            sequence=sequence,
            previous=previous,
            policy_version=sheet.policy_version,
            policy_hash=sheet.policy_hash,
            sheet_hash=self.sheet.hash,
            window=(0, 0),
            issued_at=NOW,
            recipients=tuple(sorted(key.kid for key in keys)),
            commitment=commitment(padded),
            receipt=(0, bytes(32)),
            purpose=sheet.purpose,
            right_hash=right_hash(sheet.right),
        )
        header = dataclasses.replace(header, **changes)
        sealed = seal(header, padded, signer or self.keys.signing, keys, kind)
        if advance:
            self.ends[epoch, stream] = (sequence + 1, digest(sealed))
        return sealed

    def skipping(self, stream: int | None = None, epoch: int = 1) -> Self:
        """Leave out one sequence of a stream."""
        key = (epoch, stream or self.short)
        sequence, previous = self.ends.get(key, (0, genesis(self.keys.address, *key)))
        self.ends[key] = (sequence + 1, previous)
        return self


class Brain:
    """The inbox and its ledger, as shipped, and what it answered."""

    def __init__(self, folder: Path, *factories: Keys, name: str = "brain") -> None:
        self.path = folder / "ledger.db"
        self.encryption = opening_key(name)
        self.receipt = signing_key(name)
        self.factories = {
            keys.address: Factory(keys.name, "main", keys.agent_card) for keys in factories
        }
        self.clock = NOW
        self.certificates: list[Expiry] = []
        self.open()

    def now(self) -> int:
        return self.clock * 10**9

    def open(self) -> None:
        """Start, or start again after `close`."""
        self.ledger = Ledger(self.path)
        self.opener = Opener(self.ledger, self.encryption, Opened())
        self.inbox = Inbox(
            self.ledger,
            self.opener,
            self.encryption.public.kid,
            sheet_pin(self.encryption.public.public),
            self.receipt,
            lambda: self.factories,
            self.now,
            lambda: self.certificates,
        )

    def close(self) -> None:
        self.ledger.close()

    def take(self, keys: Keys, *messages: bytes) -> Outcome:
        """Process messages that came on the agent's own topic, as one group."""
        topic = keys.address.topic("up")
        return self.inbox.process([(topic, message) for message in messages])

    def answers(self, keys: Keys, outcome: Outcome) -> list[Answer]:
        down = keys.address.topic("down")
        return [
            read_answer(signed, keys.address, [self.receipt.public])
            for topic, signed in outcome.answers
            if topic == down
        ]

    def receipt_of(self, keys: Keys, outcome: Outcome) -> Receipt:
        (answer,) = self.answers(keys, outcome)
        assert isinstance(answer, Receipt)
        return answer

    def request_of(self, keys: Keys, outcome: Outcome) -> Request:
        (answer,) = self.answers(keys, outcome)
        assert isinstance(answer, Request)
        return answer
