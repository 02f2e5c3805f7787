"""The columns are what the library makes of the same bytes, and no bytes do harm."""

import contextlib
import struct
import tracemalloc
import uuid
from collections.abc import Callable
from dataclasses import fields
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np
import pytest
from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.ua_binary import (
    nodeid_from_binary,
    struct_from_binary,
    struct_to_binary,
    variant_from_binary,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.drivers.opcua import answers, bounds
from protocols.drivers.opcua.answers import columns_work, read_publish, read_read
from protocols.drivers.opcua.columns import NO_TIME, ODD, Changes, read_changes, read_values

T = ua.VariantType
# The library's annotations ask for wrappers of numbers that its own code does not use.
VALUE: Callable[..., ua.DataValue] = ua.DataValue
STATUS: Callable[..., ua.StatusCode] = ua.StatusCode
ITEM: Callable[..., ua.MonitoredItemNotification] = ua.MonitoredItemNotification
INTEGERS = {
    T.SByte: (-(2**7), 2**7 - 1),
    T.Byte: (0, 2**8 - 1),
    T.Int16: (-(2**15), 2**15 - 1),
    T.UInt16: (0, 2**16 - 1),
    T.Int32: (-(2**31), 2**31 - 1),
    T.UInt32: (0, 2**32 - 1),
    T.Int64: (-(2**63), 2**63 - 1),
    T.UInt64: (0, 2**64 - 1),
}
KINDS = {
    getattr(ObjectIds, name): name.removesuffix("_Encoding_DefaultBinary")
    for name in dir(ObjectIds)
    if name.endswith("Response_Encoding_DefaultBinary")
}
MOMENTS = st.datetimes(datetime(1601, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis wants it so


def variants() -> st.SearchStrategy[ua.Variant]:
    whole = [
        st.integers(low, high).map(partial(ua.Variant, VariantType=kind))
        for kind, (low, high) in INTEGERS.items()
    ]
    others = [
        st.floats(width=64).map(lambda number: ua.Variant(number, T.Double)),
        st.floats(width=32).map(lambda number: ua.Variant(number, T.Float)),
        st.booleans().map(lambda flag: ua.Variant(flag, T.Boolean)),
        st.just(ua.Variant(None, T.Null)),
        MOMENTS.map(lambda moment: ua.Variant(moment, T.DateTime)),
        st.just(ua.Variant(uuid.UUID(int=7), T.Guid)),
        st.text(max_size=5).map(lambda text: ua.Variant(text, T.String)),
        st.lists(st.integers(0, 9), max_size=4).map(
            lambda row: ua.Variant(row, T.Int16, is_array=True)
        ),
        st.just(ua.Variant([[1, 2, 3], [4, 5, 6]], T.Int32)),
        st.just(ua.Variant(ua.LocalizedText("x"), T.LocalizedText)),
    ]
    return st.one_of(*whole, *others)


def data_values() -> st.SearchStrategy[ua.DataValue]:
    maybe_moment = st.none() | MOMENTS
    status = st.sampled_from([0, 0x40000000, 0x80000000, 0x480, 0xC0000001]).map(STATUS)
    return st.builds(
        VALUE,
        Value=variants(),
        StatusCode=status | st.none(),
        SourceTimestamp=maybe_moment,
        ServerTimestamp=maybe_moment,
    )


def alike(found: Changes, wanted: Changes) -> None:
    for part in fields(Changes):
        if part.name == "odd":
            assert [(at, repr(one)) for at, one in found.odd] == [
                (at, repr(one)) for at, one in wanted.odd
            ]
        else:
            mine, theirs = getattr(found, part.name), getattr(wanted, part.name)
            assert mine.dtype == theirs.dtype, part.name
            np.testing.assert_array_equal(mine, theirs, part.name)


def published(*data: Any) -> bytes:
    answer = ua.PublishResponse()
    answer.Parameters.SubscriptionId = 77
    answer.Parameters.AvailableSequenceNumbers = [1, 2, 3]
    answer.Parameters.NotificationMessage.SequenceNumber = 9
    answer.Parameters.NotificationMessage.NotificationData = list(data)
    return struct_to_binary(answer)


def data_change(values: list[ua.DataValue]) -> ua.DataChangeNotification:
    items = [ITEM(ClientHandle=at % 5, Value=value) for at, value in enumerate(values)]
    return ua.DataChangeNotification(MonitoredItems=items)


def by_library(body: bytes, read: Callable[[bytes], Any]) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answers, "columns_work", lambda: False)
        return read(body)


def test_the_installed_library_is_as_expected() -> None:
    assert columns_work()


@given(st.lists(data_values(), max_size=12))
def test_notifications_are_read_as_the_library_reads_them(values: list[ua.DataValue]) -> None:
    change = ua.StatusChangeNotification(Status=STATUS(0x80000000))
    body = published(data_change(values), change, data_change(values[:3]))
    found, wanted = answers._publish(Buffer(body), body), by_library(body, read_publish)
    assert found.Parameters.SubscriptionId == wanted.Parameters.SubscriptionId == 77
    mine = found.Parameters.NotificationMessage
    theirs = wanted.Parameters.NotificationMessage
    assert mine.SequenceNumber == theirs.SequenceNumber == 9
    assert mine.PublishTime == theirs.PublishTime
    assert mine.NotificationData[1].Status.value == theirs.NotificationData[1].Status.value
    for at in (0, 2):
        alike(mine.NotificationData[at], theirs.NotificationData[at])


@given(data_values(), st.integers(1, 50))
def test_values_that_lie_alike_are_read_as_the_library_reads_them(
    value: ua.DataValue, count: int
) -> None:
    body = struct_to_binary(ua.ReadResponse(Results=[value] * count))
    alike(read_read(body), by_library(body, read_read))


@given(st.lists(data_values(), max_size=12))
def test_answers_to_reads_are_read_as_the_library_reads_them(values: list[ua.DataValue]) -> None:
    body = struct_to_binary(ua.ReadResponse(Results=values))
    alike(read_read(body), by_library(body, read_read))


@given(
    st.lists(data_values(), min_size=1, max_size=6),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4),
    st.none() | st.integers(0, 300),
)
def test_damaged_notifications_are_read_as_the_library_reads_them_or_refused(
    values: list[ua.DataValue], damage: list[tuple[int, int]], cut: int | None
) -> None:
    body = bytearray(published(data_change(values)))
    for at, byte in damage:
        body[at % len(body)] = byte
    damaged = bytes(body[:cut])
    try:
        wanted = by_library(damaged, read_publish)
    except Exception:  # noqa: BLE001 - the library refuses in any way
        wanted = None
    try:
        found = answers._publish(Buffer(damaged), damaged)
    except Exception:  # noqa: BLE001 - then the library is asked
        return
    if wanted is not None:
        mine, theirs = found.Parameters.NotificationMessage, wanted.Parameters.NotificationMessage
        assert len(mine.NotificationData) == len(theirs.NotificationData or ())
        for one, other in zip(mine.NotificationData, theirs.NotificationData or (), strict=True):
            if isinstance(one, Changes):
                alike(one, other)


@given(st.binary(max_size=300), st.integers(-1, 100), st.booleans())
def test_nonsense_is_read_in_proportion_to_its_length_or_refused(
    body: bytes, count: int, monitored: bool
) -> None:
    read = read_changes if monitored else read_values
    try:
        found, end = read(body, 0, count)
    except Exception:  # noqa: BLE001 - any kind is the promise
        return
    assert len(found) == count
    assert end <= len(body)


@pytest.mark.parametrize("service", [read_publish, read_read])
@given(body=st.binary(max_size=300))
def test_nonsense_for_an_answer_ends_soon(service: Callable[[bytes], Any], body: bytes) -> None:
    try:
        service(body)
    except Exception:  # noqa: BLE001 - any kind is the promise
        return


def test_picoseconds_stand_each_behind_its_own_time() -> None:
    ticks = 133_000_000_000_000_000
    full = struct.pack("<IBBdqHqH", 1, 0x3D, 11, 2.5, ticks, 7, ticks + 10, 8)
    found, end = read_changes(full, 0, 1)
    assert (end, found.real.tolist()) == (len(full), [2.5])
    wanted = (ticks - 116_444_736_000_000_000) // 10
    assert found.time_us.tolist() == [wanted]
    server_only = struct.pack("<IBBdqH", 1, 0x29, 11, 2.5, ticks + 10, 8)
    assert read_changes(server_only, 0, 1)[0].time_us.tolist() == [wanted + 1]
    # Picoseconds of a time that is not there: the library takes them for part of the other.
    odd = struct.pack("<IBBdHq", 1, 0x19, 11, 2.5, 7, ticks)
    assert read_changes(odd, 0, 1)[0].time_us.tolist() == [NO_TIME]


def test_what_has_no_fixed_length_keeps_its_place_among_the_others() -> None:
    values = [
        VALUE(ua.Variant(1.5, T.Double)),
        VALUE(ua.Variant("text", T.String)),
        VALUE(ua.Variant(3, T.UInt16)),
        VALUE(ua.Variant([1, 2], T.Int32)),
        VALUE(ua.Variant(-4, T.Int64), SourceTimestamp=datetime(2026, 1, 1, tzinfo=UTC)),
    ]
    body = struct_to_binary(ua.ReadResponse(Results=values))
    found = read_read(body)
    assert found.kind.tolist() == [11, ODD, 5, ODD, 8]
    assert found.whole.tolist() == [0, 0, 3, 0, -4]
    assert [(at, variant.Value) for at, variant in found.odd] == [(1, "text"), (3, [1, 2])]


def test_where_the_library_has_changed_it_reads_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise AttributeError

    body = published(data_change([VALUE(ua.Variant(1.5, T.Double))]))
    wanted = read_publish(body).Parameters.NotificationMessage.NotificationData[0]
    monkeypatch.setattr(answers, "_publish", broken)
    columns_work.cache_clear()
    try:
        assert not columns_work()
        found = read_publish(body).Parameters.NotificationMessage.NotificationData[0]
    finally:
        columns_work.cache_clear()
    assert isinstance(found, Changes)
    alike(found, wanted)


@pytest.mark.parametrize(
    "variant",
    [
        struct.pack("<Bi", 0x80, 2**31 - 1),
        struct.pack("<Biii", 0x80 | 12, 2**31 - 1, -4, -4),
        struct.pack("<BiBiii", 0xC0 | 3, 1, 1, 2, 1000, 1000),
        struct.pack("<BiBiii", 0xC0 | 3, 1, 1, 2, -1, -1),
        struct.pack("<Bi", 0x80 | 11, 2**31 - 1),
        struct.pack("<Bi", 0x80 | 24, 2**31 - 1) + b"\0" * 50,
        b"\x18" * 5000,
    ],
    ids=["nothing", "backwards", "extents", "negative", "doubles", "variants", "deep"],
)
def test_few_bytes_never_become_much(variant: bytes) -> None:
    bounds.install()
    tracemalloc.start()
    try:
        with pytest.raises(Exception):  # noqa: B017, PT011 - any kind is the promise
            variant_from_binary(Buffer(variant))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 8 << 20


def answers_of_all_services() -> list[bytes]:
    """What servers answer to all that we ask of them."""
    text, node = ua.LocalizedText("x"), ua.NodeId("x", 1)  # type: ignore[arg-type] # see above
    value = VALUE(
        ua.Variant(["a", "b"], T.String), SourceTimestamp=datetime(2026, 1, 1, tzinfo=UTC)
    )
    history: Any = ua.HistoryData(DataValues=[value, value])
    field = ua.StructureField(Name="f", Description=text, DataType=node)
    layout = ua.StructureDefinition(DefaultEncodingId=node, BaseDataType=node, Fields=[field])
    endpoint = ua.EndpointDescription(
        ServerCertificate=b"c" * 40, UserIdentityTokens=[ua.UserTokenPolicy()]
    )
    opened: Any = ua.CreateSessionResponse()
    opened.Parameters.ServerEndpoints = [endpoint]
    browsed = ua.BrowseResult(References=[ua.ReferenceDescription(NodeId=node)])
    paths = ua.BrowsePathResult(Targets=[ua.BrowsePathTarget(TargetId=node)])
    found = [
        ua.GetEndpointsResponse(Endpoints=[endpoint]),
        opened,
        ua.BrowseResponse(Results=[browsed]),
        ua.TranslateBrowsePathsToNodeIdsResponse(Results=[paths]),
        ua.CreateMonitoredItemsResponse(Results=[ua.MonitoredItemCreateResult()]),
        ua.HistoryReadResponse(Results=[ua.HistoryReadResult(HistoryData=history)]),
        ua.ReadResponse(Results=[value, VALUE(ua.Variant(layout, T.ExtensionObject))]),
        ua.OpenSecureChannelResponse(),
    ]
    return [struct_to_binary(one) for one in found]


ANSWERS = answers_of_all_services()


@given(
    st.sampled_from(ANSWERS),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=4),
)
@settings(deadline=None)
def test_damaged_answers_of_every_service_end_soon_and_stay_small(
    answer: bytes, damage: list[tuple[int, int]]
) -> None:
    body = bytearray(answer)
    for at, byte in damage:
        body[at % len(body)] = byte
    kind: Any = nodeid_from_binary(Buffer(answer)).Identifier
    name = KINDS[kind]
    tracemalloc.start()
    try:
        with contextlib.suppress(Exception):
            struct_from_binary(name, Buffer(bytes(body)))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 4 << 20


def test_extents_give_an_array_its_shape() -> None:
    for value in ([[1, 2, 3], [4, 5, 6]], [[[1], [2]], [[3], [4]]]):
        encoded = struct_to_binary(VALUE(ua.Variant(value, T.Int32)))
        decoded = struct_from_binary(ua.DataValue, Buffer(encoded)).Value
        assert decoded is not None
        assert decoded.Value == value
