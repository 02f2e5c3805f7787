"""Names that usually hold trade secrets, from the companion specifications of machine makers.

OPC 40083 and 40077 (plastics), OPC 40501-1 (machine tools) and PackML name recipes, orders, programs,
set-points and assets so. A name is a hint, no proof: the lint warns.
"""

import re
from typing import Final

_WORDS: Final = (
    "customer",
    "productname",
    "productdescription",
    "jobname",
    "jobdescription",
    "jobidentifier",
    "material",
    "dataset",
    "mould",
    "mold",
    "nominalparts",
    "cycletime",
    "barrel",
    "screw",
    "order",
    "program",
    "tool",
    "recipe",
    "ingredient",
    "processvariable",
    "productid",
    "parameter",
    "setpoint",
    "spindle",
    "axis",
    "feedrate",
    "injection",
    "stroke",
    "serialnumber",
    "assetid",
    "productinstanceuri",
    "secret",
    "配方",
    "订单",
    "程序",
    "工艺",
    "设定",
    "客户",
    "序列号",
)
_NOISE: Final = re.compile(r"[\s_\-./;:=]+")


def sounds_secret(name: str) -> str:
    """Return the word in a name that sounds like a secret; empty when there is none."""
    plain = _NOISE.sub("", name.lower())
    return next((word for word in _WORDS if word in plain), "")
