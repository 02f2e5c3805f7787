"""OPC-UA: one subscription per device, notifications decoded as columns.

A working configuration, once `millgate agent cert init` has made a certificate and
`millgate agent cert trust` has looked at the server's; `security = "none"` needs neither:

    [[device]]
    id = "press-1"
    kind = "opcua"
    url = "opc.tcp://192.168.1.30:4840"
    user = "millgate"
    password_file = "press-1.password"
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

from protocols.drivers.opcua import bounds, quiet
from protocols.drivers.opcua.config import Config
from protocols.drivers.opcua.driver import Driver

quiet.install()
bounds.install()

__all__ = ["Config", "Driver"]
