"""Modbus TCP: block reads, decoded as whole columns.

A working configuration:

    [[device]]
    id = "main-meter"
    kind = "modbus"
    host = "192.168.1.20"
    unit = 1
    interval = "1s"

    [[device.points]]
    id = "energy"
    address = "holding:0"
    type = "uint32"
    scale = 0.01
    unit = "kWh"
    measurand = "energy.active_import"
"""

from protocols.drivers.modbus.config import Config
from protocols.drivers.modbus.driver import Driver

__all__ = ["Config", "Driver"]
