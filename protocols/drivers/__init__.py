"""Drivers: one file or folder per protocol; its name is its `kind` in configuration.

A driver module has a `Config` (subclass of `DeviceConfig`) and a `Driver`. Only the kinds
that a configuration names are imported, since protocol libraries are slow to load.
"""

import importlib
import pkgutil
from collections.abc import AsyncGenerator
from types import ModuleType
from typing import Any, ClassVar, Protocol

from pydantic import Field, field_validator

from protocols.errors import MillgateError
from protocols.frame import Frame, NowNs
from protocols.language import tr
from protocols.points import LocalId, Point, PointTable
from protocols.settings import Strict


class NotConnected(MillgateError):
    """The device cannot be reached or stopped answering; the collector will try again."""


class DeviceConfig(Strict):
    """What every device has; each driver adds its own address and points.

    Attributes:
        id: local id, unique in the agent.
        kind: the driver's name.
        points: what the device offers.
    """

    id: LocalId
    kind: str
    points: list[Point] = Field(default=[], max_length=100_000)

    @field_validator("points", check_fields=False)
    @classmethod
    def _unique(cls, points: list[Point]) -> list[Point]:
        seen: set[str] = set()
        for point in points:
            if point.id in seen:
                raise ValueError(
                    tr(f"point id '{point.id}' is used twice", f"点标识 '{point.id}' 重复")
                )
            seen.add(point.id)
        return points

    def table(self) -> PointTable:
        """Return the point table that this device's frames refer to."""
        raise NotImplementedError


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


def kinds() -> list[str]:
    """Return the names of all drivers there are, without importing them."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(kind: str) -> ModuleType:
    """Import the driver of that kind.

    Raises:
        KeyError: when there is none.
    """
    if kind not in kinds():
        raise KeyError(kind)
    return importlib.import_module(f"{__name__}.{kind}")
