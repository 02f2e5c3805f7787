"""Structures: their layout as the server tells it, and their bytes.

asyncua can do this too, but registers every server's types in one place for the whole process,
under namespace numbers: of two servers, one would be read by the other's layout.
"""

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from asyncua import ua
from asyncua.common.ua_utils import data_type_to_variant_type
from asyncua.common.utils import Buffer
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.ua_binary import Primitives, unpack_uatype, unpack_uatype_array
from asyncua.ua.uaerrors import UaError

from protocols.drivers.opcua.client import SecureClient
from protocols.drivers.opcua.limits import NODE

_DEEPEST: Final = 8
_MOST_FIELDS: Final = 500
_STRUCTURE: Final = 22


class Typed(NamedTuple):
    """A value, an array of values or the fields of a structure.

    Attributes:
        kind: the type of the value or of each element; None where only Python's is known.
        value: a scalar, a list, a dict of fields, or one of the library's own objects.
    """

    kind: ua.VariantType | None
    value: Any


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a structure.

    Attributes:
        name: its name.
        kind: its built-in type, or the layout of a structure within the structure.
        rank: 0 or less for a single value, else the number of dimensions.
        optional: whether it may be left out.
    """

    name: str
    kind: "ua.VariantType | Layout"
    rank: int
    optional: bool


@dataclass(frozen=True, slots=True)
class Layout:
    """How a structure's bytes lie.

    Attributes:
        encoding: by which node values of it are marked.
        fields: in order.
        union: whether there is only one of them at a time.
        optional: whether fields may be left out.
    """

    encoding: ua.NodeId
    fields: tuple[Field, ...]
    union: bool
    optional: bool


class Unreadable(Exception):
    """A structure whose layout the server does not tell, or that is not read here."""


class Layouts:
    """Asks a server for layouts, each once."""

    def __init__(self, client: SecureClient) -> None:
        self._client = client
        self._known: dict[ua.NodeId, ua.VariantType | Layout] = {}
        self.by_encoding: dict[ua.NodeId, Layout] = {}
        """Every layout found, by the mark of its values."""

    async def learn(self, node: ua.NodeId) -> None:
        """Learn the layout of a variable's structure.

        Raises:
            Unreadable: when that cannot be had.
        """
        try:
            data_type = await self._attribute(node, AttributeIds.DataType)
            if _standard(data_type):
                return
            kind = await self._kind(data_type, 0)
        except (UaError, ValueError) as error:
            raise Unreadable(type(error).__name__) from None
        if not isinstance(kind, Layout):
            raise Unreadable(kind.name)

    async def _attribute(self, node: ua.NodeId, attribute: AttributeIds) -> Any:
        wanted = ua.ReadValueId(NodeId=node, AttributeId=attribute)
        (answer,) = await self._client.uaclient.session.read(
            ua.ReadParameters(NodesToRead=[wanted])
        )
        if answer.Value is None or answer.StatusCode is None or answer.StatusCode.is_bad():
            raise Unreadable(attribute.name)
        return answer.Value.Value

    async def _kind(self, data_type: Any, depth: int) -> ua.VariantType | Layout:
        if not isinstance(data_type, ua.NodeId) or depth > _DEEPEST:
            raise Unreadable("DataType")
        known = self._known.get(data_type)
        if known is not None:
            return known
        kind: ua.VariantType | Layout
        kind = await data_type_to_variant_type(self._client.get_node(data_type))
        if kind is ua.VariantType.ExtensionObject and data_type != NODE(_STRUCTURE):
            kind = await self._layout(data_type, depth)
        self._known[data_type] = kind
        return kind

    async def _layout(self, data_type: ua.NodeId, depth: int) -> Layout:
        told = await self._attribute(data_type, AttributeIds.DataTypeDefinition)
        kinds = ua.StructureType
        if (
            not isinstance(told, ua.StructureDefinition)
            or told.StructureType > kinds.Union
            or len(told.Fields) > _MOST_FIELDS
        ):
            raise Unreadable("DataTypeDefinition")
        fields = [
            Field(
                name=str(field.Name),
                kind=await self._kind(field.DataType, depth + 1),
                rank=field.ValueRank,
                optional=bool(field.IsOptional),
            )
            for field in told.Fields
        ]
        layout = Layout(
            encoding=told.DefaultEncodingId,
            fields=tuple(fields),
            union=told.StructureType == kinds.Union,
            optional=told.StructureType == kinds.StructureWithOptionalFields,
        )
        self.by_encoding[layout.encoding] = layout
        return layout


class _Bounded(Buffer):
    """Refuses to go backwards, which the library does for texts of negative length."""

    def read(self, size: int) -> bytes:
        if size < 0:
            raise ValueError("length")
        return super().read(size)


def _standard(data_type: Any) -> bool:
    """Tell whether a type is one of the standard's own, which the library takes apart itself."""
    inside = isinstance(data_type, ua.NodeId) and data_type.NamespaceIndex == 0
    return inside and data_type != NODE(_STRUCTURE)


def decode(layout: Layout, body: bytes) -> dict[str, Typed]:
    """Take the bytes of a structure apart.

    Raises:
        Exception: of any kind, when they do not follow the layout or do not end with it.
    """
    data = _Bounded(body)
    fields = _fields(layout, data)
    if len(data):
        raise ValueError("bytes are left over")
    return fields


def _fields(layout: Layout, data: Buffer) -> dict[str, Typed]:
    if layout.union:
        chosen = Primitives.UInt32.unpack(data)
        present = layout.fields[chosen - 1 : chosen] if chosen else ()
        if chosen and not present:
            raise ValueError("no such field")
        return {field.name: _value(field, data) for field in present}
    mask = Primitives.UInt32.unpack(data) if layout.optional else 0
    if mask >> sum(field.optional for field in layout.fields):
        raise ValueError("unassigned bits")
    fields: dict[str, Typed] = {}
    bit = 1
    for field in layout.fields:
        if layout.optional and field.optional:
            left_out, bit = not mask & bit, bit << 1
            if left_out:
                continue
        fields[field.name] = _value(field, data)
    return fields


def _value(field: Field, data: Buffer) -> Typed:
    if field.rank > 1:
        return _matrix(field, data)
    if isinstance(field.kind, Layout):
        if field.rank < 1:
            return Typed(None, _fields(field.kind, data))
        return Typed(None, [_fields(field.kind, data) for _ in range(_length(data))])
    if field.rank < 1:
        return Typed(field.kind, unpack_uatype(field.kind, data))
    _length(data.copy())
    return Typed(field.kind, unpack_uatype_array(field.kind, data))


def _matrix(field: Field, data: Buffer) -> Typed:
    """Read an array of several dimensions: its extents, then its elements, the last index fastest."""
    extents = [Primitives.Int32.unpack(data) for _ in range(_length(data))]
    count = 1
    for extent in extents:
        count *= extent
    if len(extents) != field.rank or min(extents) < 1 or count > len(data):
        raise ValueError("extents")
    kind = field.kind
    if isinstance(kind, Layout):
        flat: list[Any] = [_fields(kind, data) for _ in range(count)]
    else:
        flat = [unpack_uatype(kind, data) for _ in range(count)]
    for extent in reversed(extents[1:]):
        flat = [flat[at : at + extent] for at in range(0, len(flat), extent)]
    return Typed(None if isinstance(kind, Layout) else kind, flat)


def _length(data: Buffer) -> int:
    """Read how many elements follow; each takes a byte at least, so no more than are left."""
    length = int(Primitives.Int32.unpack(data))
    if length > len(data):
        raise ValueError("length")
    return max(length, 0)
