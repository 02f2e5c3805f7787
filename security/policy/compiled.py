"""The compiled policy and its release sheets: the bytes that are signed and enforced."""

import hashlib
from decimal import Decimal
from typing import Annotated, Final, Literal, TypeVar

import zstandard
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from protocols import strict_cbor
from protocols.batch import LARGEST_MANTISSA
from protocols.strict_cbor import Malformed
from protocols.vocabulary.states import OperatingState
from security.envelope import HASH_BYTES

MAX_COMPILED: Final = 32 << 20
Hash = Annotated[bytes, Field(min_length=HASH_BYTES, max_length=HASH_BYTES)]
Aggregate = Literal["last", "delta", "state"]


class _Exact(BaseModel):
    """Strict types, no unknown fields: what is signed means one thing."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Terms(_Exact):
    """One consumer: its pinned keys and what it may do."""

    id: str
    encryption_key: Hash
    receipt_key: Hash
    purpose: int
    right: str
    retention_days: int
    pad: int


class Rule(_Exact):
    """One released point.

    Attributes:
        consumer: position in the policy's consumers.
        stream: the stream it travels in.
        number: its (first) number on the wire.
        window_s: slot length in seconds.
        exponent, step: released values are multiples of step x 10**exponent.
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
    consumer: int
    stream: int
    number: int
    equipment: str
    role: str
    aggregate: Aggregate
    window_s: int
    exponent: int
    step: int
    class_raw: str
    class_released: str

    def digest(self) -> bytes:
        """Return 8 bytes that change with anything that gives the point's memory its meaning."""
        fields = self.model_dump(
            exclude={"equipment", "role", "class_raw", "class_released", "consumer", "stream"}
        )
        return hashlib.sha256(strict_cbor.encode(fields)).digest()[:8]

    def scaling(self) -> tuple[Decimal, Decimal]:
        """Return scale and offset."""
        return Decimal(self.scale), Decimal(self.offset)


class CompiledPolicy(_Exact):
    """What the gate enforces.

    Attributes:
        valid_from, valid_until: seconds since 1970 UTC.
        previous: hash of the version before, zeros for the first.
        rules: the released points, by number.
    """

    policy: Literal["mg-policy/1"]
    version: int = Field(ge=1)
    previous: Hash
    valid_from: int
    valid_until: int
    class_ceiling: str
    consumers: list[Terms]
    rules: list[Rule]


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
    """

    number: int = Field(ge=1, lt=1 << 31)
    stream: int
    measurand: str = Field(pattern=r"^[a-z][a-z0-9_.]{0,63}$")
    part: str = Field(pattern=r"^[a-z_]{0,32}$")
    unit: str = Field(max_length=16)
    exponent: int = Field(ge=-9, le=9)
    step: int = Field(ge=1, le=LARGEST_MANTISSA)
    aggregate: Aggregate
    equipment: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")
    role: str = Field(pattern=r"^[a-z]{0,16}$")


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
    return strict_cbor.encode(content.model_dump())


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


STATE_PARTS: Final = ("end", *(state.name.lower() for state in OperatingState if state))
"""Parts of a state in the order of its numbers."""
