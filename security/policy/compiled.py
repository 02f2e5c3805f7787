"""The compiled policy and its release sheets: the bytes that are signed and enforced."""

import hashlib
from decimal import Decimal
from typing import Annotated, Final, Literal, Self, TypeVar

import zstandard
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from protocols import strict_cbor
from protocols.batch import LARGEST_MANTISSA
from protocols.settings import share_parts
from protocols.strict_cbor import Malformed
from protocols.vocabulary.states import OperatingState
from security.envelope import HASH_BYTES
from security.policy.words import Aggregate

MAX_COMPILED: Final = 32 << 20
Hash = Annotated[bytes, Field(min_length=HASH_BYTES, max_length=HASH_BYTES)]
Mantissa = Annotated[int, Field(ge=-LARGEST_MANTISSA, le=LARGEST_MANTISSA)]
LARGEST_PSEUDONYM: Final = (1 << 52) - 1
Flag = Annotated[int, Field(ge=0, le=1)]
"""Yes or no: profile `mg1` has no other numbers than integers."""
Seconds = Annotated[int, Field(ge=0, le=1 << 31)]
_LARGEST: Final = (1 << 31) - 1

STATE_PARTS: Final = ("end", *(state.name.lower() for state in OperatingState if state))
"""Parts of a state in the order of its numbers."""


class _Exact(BaseModel):
    """Strict types, no unknown fields: what is signed means one thing.

    A field that has a default is written only where it differs from it. So what was signed before
    the field was thought of stays readable, byte for byte; and whoever does not know the field
    refuses the whole.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Terms(_Exact):
    """One consumer: its pinned keys and what it may do.

    Attributes:
        budget_points, budget_rows, budget_bytes: the most that may leave to it: numbers, and
            values and encoded bytes in a day of UTC; 0 is no limit.
    """

    id: str
    encryption_key: Hash
    receipt_key: Hash
    purpose: int
    right: str
    retention_days: int = Field(ge=1, le=36_500)
    pad: int = Field(ge=1, le=65_536)
    budget_points: int = Field(default=0, ge=0)
    budget_rows: int = Field(default=0, ge=0)
    budget_bytes: int = Field(default=0, ge=0)


class Leaving(_Exact):
    """What all that leaves has in common.

    Attributes:
        consumer: position in the policy's consumers.
        stream: the stream it travels in.
        number: its (first) number on the wire.
        window_s: slot length in seconds.
        exponent, step: released values are multiples of step x 10**exponent.
        clamp: mantissas of the lowest and the highest value in units of 10**clamp_exponent; or
            nothing.
        bands: mantissas of the edges in units of 10**bands_exponent; with them, what leaves is
            how many edges the value has reached.
        delay_s: a slot leaves so long after its end at the earliest.
        retention_days: where it is shorter than the consumer's; else 0.
    """

    consumer: int = Field(ge=0)
    stream: int
    number: int = Field(ge=1, le=_LARGEST)
    equipment: str
    role: str
    window_s: int = Field(ge=1, le=86_400)
    exponent: int = Field(ge=-9, le=9)
    step: int = Field(ge=1, le=LARGEST_MANTISSA)
    class_raw: str
    class_released: str
    class_reason: str = ""
    clamp: list[Mantissa] = Field(default=[], max_length=2)
    clamp_exponent: int = Field(default=0, ge=-9, le=0)
    bands: list[Mantissa] = Field(default=[], max_length=32)
    bands_exponent: int = Field(default=0, ge=-9, le=0)
    delay_s: Seconds = 0
    retention_days: int = Field(default=0, ge=0, le=36_500)

    @model_validator(mode="after")
    def _meaningful(self) -> Self:
        if len(self.clamp) == 1 or self.clamp != sorted(set(self.clamp)):
            raise ValueError("clamp is a lower and a higher bound")
        if self.clamp and not self.bands and self.clamp_exponent < self.exponent:
            raise ValueError("clamp lies on the grid of the values")
        if self.bands != sorted(set(self.bands)):
            raise ValueError("bands rise")
        return self

    def digest(self) -> bytes:
        """Return 8 bytes that change with anything that gives the point's memory its meaning."""
        fields = self.model_dump(
            exclude={
                "equipment",
                "role",
                "class_raw",
                "class_released",
                "class_reason",
                "consumer",
                "stream",
                "retention_days",
            },
            exclude_defaults=True,
        )
        return hashlib.sha256(strict_cbor.encode(fields)).digest()[:8]


class Rule(Leaving):
    """One way in which a point leaves.

    Attributes:
        min_samples: with fewer values nothing leaves.
        fill_within_s: so long after its end a slot that was missing may be filled, once.
        pseudonym_s: the value is replaced by a pseudonym, which changes after so long; 0 is never.
        range: lowest and highest believable value as decimal texts in the measurand's unit, or
            nothing.
        origin: which device answers and how its bytes are read; empty where that is not signed.
    """

    device: str
    point: str
    address: str
    type: str
    unit: str
    scale: str
    offset: str
    measurand: str
    state_model: str
    aggregate: Aggregate
    min_samples: int = Field(default=1, ge=1)
    fill_within_s: Seconds = 0
    pseudonym_s: Seconds = 0
    range: list[str] = Field(default=[], max_length=2)
    origin: str = ""

    @property
    def source(self) -> str:
        """What it comes from, as people name it."""
        return f"{self.device}/{self.point}"

    @property
    def width(self) -> int:
        """How many numbers it takes."""
        return len(STATE_PARTS) if self.aggregate == "state" else 1

    def scaling(self) -> tuple[Decimal, Decimal]:
        """Return scale and offset."""
        return Decimal(self.scale), Decimal(self.offset)


class Input(_Exact):
    """One input of a derivation: the exact typed source; it does not leave by itself."""

    name: str
    device: str
    point: str
    address: str
    type: str
    unit: str
    scale: str
    offset: str
    measurand: str
    state_model: str
    range: list[str] = Field(default=[], max_length=2)
    origin: str = ""


class Derivation(Leaving):
    """One key figure that is computed from inputs that need not leave.

    Attributes:
        constants: by name, as decimal texts.
    """

    name: str
    formula: str
    inputs: list[Input]
    constants: dict[str, str] = {}

    @property
    def source(self) -> str:
        """What it comes from, as people name it."""
        return self.name

    @property
    def width(self) -> int:
        """How many numbers it takes."""
        return 1


class SecretSource(_Exact):
    """What must never follow from what leaves; for the lint, it enters no sheet.

    Attributes:
        point: `device/point`.
        protect: percent, as a decimal text.
        canary: 1 for a point whose value must turn up nowhere.
    """

    point: str
    what: str = ""
    protect: str = "0"
    canary: Flag = 0


class KnownRelation(_Exact):
    """A sum of points that is always 0; for the lint, it enters no sheet.

    Attributes:
        factors: decimal texts, one for each of `points`, which are `device/point`.
    """

    name: str
    factors: list[str]
    points: list[str]


class Retired(_Exact):
    """Numbers that once belonged to something that does not leave now: they stay its own."""

    number: int = Field(ge=1, le=_LARGEST)
    width: int = Field(ge=1, le=16)
    owner: Annotated[bytes, Field(min_length=8, max_length=8)]


class CompiledPolicy(_Exact):
    """What the gate enforces.

    Attributes:
        valid_from, valid_until: seconds since 1970 UTC.
        previous: hash of the version before, zeros for the first.
        rules: the released points, by number.
        minimum_agent: an older agent enforces nothing of it.
        stopped: 1 where nothing leaves, whatever the rules say.
        derived: the released key figures, by number.
        retired: numbers that must not be given to anything else, ascending.
    """

    policy: Literal["mg-policy/1"]
    version: int = Field(ge=1)
    previous: Hash
    valid_from: int
    valid_until: int
    class_ceiling: str
    consumers: list[Terms]
    rules: list[Rule]
    minimum_agent: str = ""
    stopped: Flag = 0
    derived: list[Derivation] = []
    secrets: list[SecretSource] = []
    relations: list[KnownRelation] = []
    retired: list[Retired] = []

    @model_validator(mode="after")
    def _received(self) -> Self:
        if any(one.consumer >= len(self.consumers) for one in (*self.rules, *self.derived)):
            raise ValueError("a rule has no consumer")
        return self

    @property
    def leaving(self) -> list[Rule | Derivation]:
        """Everything that leaves, whether stopped or not, by number."""
        return sorted([*self.rules, *self.derived], key=lambda one: one.number)


def owner_of(one: Rule | Derivation) -> bytes:
    """Return 8 bytes that name what a number belongs to."""
    kind = "derived" if isinstance(one, Derivation) else "point"
    return hashlib.sha256(strict_cbor.encode([kind, one.source])).digest()[:8]


class SheetStream(_Exact):
    """A stream of a sheet: its slot length in seconds and the size its batches are padded to."""

    id: int
    window_s: int = Field(ge=1, le=86_400)
    pad: int = Field(ge=1, le=65_536)


class SheetPoint(_Exact):
    """What one number on the wire means.

    Attributes:
        part: of a state: `end` or the name of an operating state; else empty.
        exponent, step: a value is mantissa x 10**exponent in `unit`; mantissas are multiples
            of step.
        aggregate: the statistic; `derived` for a key figure that was computed in the factory.
        clamp: lowest and highest mantissa; what was beyond counts as that.
        bands: mantissas of edges in units of 10**bands_exponent `unit`; with them, a value is how
            many edges were reached.
        delay_s: a slot leaves so long after its end at the earliest.
        fill_within_s: so long after its end a slot that was missing may be filled.
        pseudonym_s: a value is a pseudonym, which changes whenever so many seconds since 1970 have
            passed; 0 is none.
        retention_days: where it is shorter than the sheet's; else 0.
    """

    number: int = Field(ge=1, lt=1 << 31)
    stream: int
    measurand: str = Field(pattern=r"^[a-z][a-z0-9_.]{0,63}$")
    part: str = Field(pattern=r"^[a-z_]{0,32}$")
    unit: str = Field(max_length=16)
    exponent: int = Field(ge=-9, le=9)
    step: int = Field(ge=1, le=LARGEST_MANTISSA)
    aggregate: Aggregate | Literal["derived"]
    equipment: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")
    role: str = Field(pattern=r"^[a-z]{0,16}$")
    clamp: list[Mantissa] = Field(default=[], max_length=2)
    bands: list[Mantissa] = Field(default=[], max_length=32)
    bands_exponent: int = Field(default=0, ge=-9, le=0)
    delay_s: Seconds = 0
    fill_within_s: Seconds = 0
    pseudonym_s: Seconds = 0
    retention_days: int = Field(default=0, ge=0, le=36_500)


class ReleaseSheet(_Exact):
    """What one consumer gets (发布目录): all that it ever learns about meaning."""

    sheet: Literal["mg-sheet/1"]
    policy_version: int = Field(ge=1)
    policy_hash: Hash
    valid_from: int
    valid_until: int
    consumer: Hash
    purpose: int
    right: str
    retention_days: int
    streams: list[SheetStream]
    points: list[SheetPoint]


Content = TypeVar("Content", CompiledPolicy, ReleaseSheet)


def to_bytes(content: CompiledPolicy | ReleaseSheet) -> bytes:
    """Return the one byte form."""
    return strict_cbor.encode(content.model_dump(exclude_defaults=True))


def from_bytes(data: bytes, kind: type[Content]) -> Content:
    """Read the one byte form.

    Raises:
        Malformed: when it is not that, or has unknown fields.
    """
    item = strict_cbor.decode(data, max_bytes=MAX_COMPILED)
    try:
        content = kind.model_validate(item)
    except ValidationError:
        raise Malformed(f"not a {kind.__name__}") from None
    if to_bytes(content) != data:
        raise Malformed("not in its one form")
    share_parts(getattr(content, "rules", None) or getattr(content, "points", []))
    return content


def content_hash(data: bytes) -> bytes:
    """Return the hash by which batches name a policy or a sheet."""
    return hashlib.sha256(data).digest()


def pack_sheet(signed_sheet: bytes) -> bytes:
    """Compress a signed sheet for its sealed message."""
    return zstandard.ZstdCompressor(level=9, write_content_size=True).compress(signed_sheet)


def unpack_sheet(packed: bytes) -> bytes:
    """Return the signed sheet of a sealed message.

    Raises:
        Malformed: when it is not one, or too large.
    """
    try:
        size = zstandard.get_frame_parameters(packed).content_size
        if not 0 < size <= MAX_COMPILED:
            raise Malformed("decompresses to too much")
        return zstandard.ZstdDecompressor().decompress(packed, allow_extra_data=False)
    except zstandard.ZstdError:
        raise Malformed("not a zstd frame") from None
