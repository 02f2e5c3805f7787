"""Drivers: one file or folder per protocol; its name is its `kind` in configuration.

A driver module has a `Config` (subclass of `DeviceConfig`) and a `Driver`. Only the kinds
that a configuration names are imported, since protocol libraries are slow to load.
"""

from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol, Self, get_args, runtime_checkable

from pydantic import Field, field_validator

from protocols.errors import ConfigError, MillgateError, Misfit
from protocols.frame import Frame, NowNs
from protocols.language import tr
from protocols.plugins import Plugins
from protocols.points import LocalId, Point, PointTable
from protocols.settings import (
    KeyPath,
    Place,
    Strict,
    check_kind,
    check_settings,
    fault_at,
    share_parts,
)
from protocols.tables import read_points


class NotConnected(MillgateError):
    """The device cannot be reached or stopped answering; the collector will try again.

    Attributes:
        since_ns: where values hold until contact is lost: when the device was last heard of, by our
            clock; None where that is not known, or does not matter.
    """

    since_ns: int | None = None


class DeviceConfig(Strict):
    """What every device has; each driver adds its own address and points.

    Attributes:
        id: local id, unique in the agent.
        kind: the driver's name.
        points: what the device offers; in the file either as tables, or as the name of a point
            table (CSV) beside it, see `protocols.tables`.
    """

    id: LocalId
    kind: str
    points: list[Point] = Field(default=[], max_length=100_000)

    @field_validator("points", check_fields=False)
    @classmethod
    def _unique(cls, points: list[Point]) -> list[Point]:
        seen: set[str] = set()
        for at, point in enumerate(points):
            if point.id in seen:
                raise Misfit(
                    tr(f"'{point.id}' is used twice", f"点标识 '{point.id}' 重复"),
                    tr("give each point its own id", "请为每个点使用不同的标识"),
                    (at, "id"),
                )
            seen.add(point.id)
        return points

    def table(self) -> PointTable:
        """Return the point table that this device's frames refer to."""
        raise NotImplementedError

    @classmethod
    def conflicts(cls, devices: Sequence[Any], path: Path) -> list[MillgateError]:
        """Return what does not fit together among all devices of this kind.

        Args:
            devices: their configurations, each of which is right by itself.
            path: the file, for the text of faults.
        """
        del devices, path
        return []

    def located(self, folder: Path) -> Self:
        """Return the same with every path that is relative to `folder` made absolute."""
        del folder
        return self


class Driver(Protocol):
    """Speaks one protocol with one device."""

    config_type: ClassVar[type[DeviceConfig]]

    def __init__(self, config: Any, now_ns: NowNs) -> None:
        """Prepare without touching the network."""

    def frames(self) -> AsyncGenerator[Frame, None]:
        """Connect, then yield frames until contact is lost.

        Closing the generator closes the connection. Each call connects anew.

        Raises:
            NotConnected: when the device cannot be reached or stops answering.
        """
        ...


@runtime_checkable
class Noting(Protocol):
    """A driver that tells what it has learned and counted; a driver need not."""

    def notes(self) -> list[str]:
        """Return short lines for the console inside the factory, in the reader's language.

        Counts, addresses and settings, such as which addresses the device refuses or how many
        answers were foreign; never a value. Lines that have nothing to tell are left out.
        """
        ...


_PLUGINS: Final = Plugins(__name__, __path__)
kinds = _PLUGINS.kinds
load = _PLUGINS.load


def read_devices(tables: object, path: Path) -> list[DeviceConfig]:
    """Validate the `[[device]]` tables of a parsed TOML file, importing only the drivers named.

    Paths in them are meant from the folder of the file, wherever the command was started.

    Raises:
        ConfigError: with every fault of every device.
    """
    if not isinstance(tables, list):
        raise ConfigError([_not_a_list(path)])
    faults: list[MillgateError] = []
    devices: list[DeviceConfig] = []
    used: set[str] = set()
    for at, table in enumerate(tables):
        try:
            # Which keys it may have, nobody can tell before its kind.
            kind = check_kind(table, kinds(), path, ("device", at))
            model: type[DeviceConfig] = load(kind).Config
            device = _read_device(table, model, path, at)
            devices.append(device.located(path.absolute().parent))
        except ConfigError as error:
            faults += error.faults
            continue
        if device.id in used:
            what = tr(f"'{device.id}' is used twice", f"设备标识 '{device.id}' 重复")
            remedy = tr("give each device its own id", "请为每台设备使用不同的标识")
            faults.append(fault_at(path, Misfit(what, remedy, ("device", at, "id"))))
        used.add(device.id)
    for model in {type(device) for device in devices}:
        faults += model.conflicts([one for one in devices if type(one) is model], path)
    if faults:
        raise ConfigError(faults)
    share_parts(point for device in devices for point in device.points)
    return devices


def point_model(model: type[DeviceConfig]) -> type[Point]:
    """Return what a device's points are."""
    found: type[Point] = get_args(model.model_fields["points"].annotation)[0]
    return found


def _read_device(table: Any, model: type[DeviceConfig], path: Path, at: int) -> DeviceConfig:
    name = table.get("points")
    if not isinstance(name, str):
        return check_settings(table, model, path, ("device", at))
    rows = read_points(path.parent / name, point_model(model))
    faults, device = list(rows.faults), None
    places: dict[KeyPath, Place] = {
        ("device", at, "points", number): place for number, place in enumerate(rows.places)
    }
    # Where no row could be used, the file's own faults say why.
    if rows.points or not faults:
        try:
            whole = {**table, "points": rows.points}
            device = check_settings(whole, model, path, ("device", at), places)
        except ConfigError as error:
            faults += error.faults
    if faults or device is None:
        raise ConfigError(faults)
    return device


def _not_a_list(path: Path) -> MillgateError:
    what = tr("must be a list of tables", "须为表的列表")
    remedy = tr("write [[device]] with two brackets", "请用双方括号写作 [[device]]")
    return fault_at(path, Misfit(what, remedy, ("device",)))
