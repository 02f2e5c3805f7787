"""A policy as an officer writes it, and keys to sign it with."""

import hashlib
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from protocols.settings import check_settings
from security.keys import SigningKey
from security.policy.compiled import CompiledPolicy
from security.policy.compiler import compile_policy
from security.policy.language import PolicyText
from security.secret import Secret

BRAIN_PIN = "sha256:" + "1a" * 32
RECEIPT_PIN = "sha256:" + "2b" * 32
OTHER_PIN = "sha256:" + "3c" * 32

POLICY = f"""\
policy = "mg-policy/1"
version = 3
previous = "sha256:{"0f" * 32}"
valid_from = 2026-01-01T00:00:00Z
valid_until = 2026-07-01T00:00:00+08:00
class_ceiling = "general-1"

[[consumer]]
id = "brain"
encryption_key = "{BRAIN_PIN}"
receipt_key = "{RECEIPT_PIN}"
purpose = "energy-statistics"
right = "DR-2026-0017"
retention_days = 730
pad = 2048

[[consumer]]
id = "park"
encryption_key = "{OTHER_PIN}"
receipt_key = "{RECEIPT_PIN}"
purpose = "carbon-emission"
retention_days = 30

[[point]]
device = "meter"
point = "energy"
address = "holding:10"
type = "uint32"
unit = "Wh"
scale = 0.1
offset = 0
measurand = "energy.active_import"
consumer = "brain"
number = 1
equipment = "meter-1"
role = "main"
release = {{ aggregate = "delta", slot = "15m", round = 0.01 }}
classes = {{ raw = "general-2", released = "general-1" }}

[[point]]
device = "meter"
point = "power"
address = "holding:12"
type = "int32"
unit = "kW"
scale = 0.001
measurand = "power.active"
consumer = "park"
number = 2
equipment = "meter-1"
release = {{ aggregate = "last", slot = "1m", round = 5 }}
classes = {{ raw = "general-1", released = "general-1" }}

[[point]]
device = "press"
point = "state"
address = "nsu=urn:x;s=State"
type = "Int32"
unit = "1"
measurand = "machine.state"
state_model = "packml"
consumer = "brain"
number = 10
equipment = "press-3"
release = {{ aggregate = "state", slot = "15m", round = 1 }}
classes = {{ raw = "general-3", released = "general-1" }}

[[point]]
device = "press"
point = "recipe"
address = "nsu=urn:x;s=Recipe"
type = "Double"
unit = "bar"
measurand = "pressure"
"""
"""Points 1 and 10 to 18 go to the brain, 2 to the park; the recipe is withheld."""

NOW_S = 1_772_000_000
"""Within the validity."""


def read(text: str, path: Path = Path("policy.toml")) -> PolicyText:
    return check_settings(tomllib.loads(text), PolicyText, path)


def changed(old: str, new: str, text: str = POLICY) -> str:
    """Return the policy with one thing written otherwise."""
    assert old in text
    return text.replace(old, new, 1)


def compiled(text: str = POLICY) -> CompiledPolicy:
    return compile_policy(read(text))


@cache
def officer(number: int) -> SigningKey:
    return SigningKey(Secret(hashlib.sha256(bytes([number])).digest()))


def replaced(policy: CompiledPolicy, **changes: Any) -> CompiledPolicy:
    return policy.model_copy(update=changes)
