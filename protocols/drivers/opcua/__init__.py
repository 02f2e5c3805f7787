"""OPC-UA: one subscription per device, notifications decoded as columns.

A working configuration:

    [[device]]
    id = "press-1"
    kind = "opcua"
    url = "opc.tcp://192.168.1.30:4840"
    security = "none"
    publishing_interval = "500ms"
    sampling_interval = "100ms"

    [[device.points]]
    id = "energy"
    address = "nsu=urn:example:press;s=Meter.Energy"
    type = "UInt32"
    scale = 0.01
    unit = "kWh"
    measurand = "energy.active_import"
"""

from protocols.drivers.opcua import quiet
from protocols.drivers.opcua.config import Config
from protocols.drivers.opcua.driver import Driver

quiet.install()

__all__ = ["Config", "Driver"]
