"""Policies as officers write them, in a few words, for tests of the officer's tools."""

from collections.abc import Mapping, Sequence
from typing import Any

from security.policy.compiled import CompiledPolicy
from security.policy.compiler import compile_policy
from security.policy.language import PolicyText

PINS = [f"sha256:{n:064x}" for n in range(1, 9)]
CLASSES = {"raw": "general-2", "released": "general-1"}
KINDS = {
    "gauge": ("power.active", "kW"),
    "counter": ("energy.active_import", "kWh"),
    "total": ("production.total", "pcs"),
    "good": ("production.good", "pcs"),
    "state": ("machine.state", "1"),
    "other": ("other", "1"),
}


def point(name: str, kind: str = "gauge", **more: Any) -> dict[str, Any]:
    """A listed point `device/point`, withheld unless `release` is given."""
    device, _, own = name.partition("/")
    measurand, unit = KINDS[kind]
    found = {
        "device": device,
        "point": own,
        "address": f"holding:{own}",
        "type": "float32" if kind in {"gauge", "other"} else "uint32",
        "unit": unit,
        "measurand": measurand,
        "classes": CLASSES,
        **more,
    }
    return found | ({"state_model": "operating"} if kind == "state" else {})


def release(
    number: int, aggregate: str, slot: str = "1m", consumer: str = "c0", **more: Any
) -> dict[str, Any]:
    """What makes a point leave."""
    grid = {} if "bands" in more else {"round": "1"}
    statistic = {"min_samples": 100} if aggregate in {"sum", "mean", "min", "max"} else {}
    return {
        "consumer": consumer,
        "number": number,
        "equipment": f"e{number}",
        "classes": CLASSES,
        "release": {"aggregate": aggregate, "slot": slot, **grid, **statistic, **more},
    }


def text(
    points: Sequence[Mapping[str, Any]],
    secrets: Sequence[str | Mapping[str, Any]] = (),
    relations: Mapping[str, Sequence[tuple[Any, str]]] | None = None,
    derive: Sequence[Mapping[str, Any]] = (),
    consumers: int = 1,
    **more: Any,
) -> PolicyText:
    """A policy for consumers c0, c1, …"""
    return PolicyText.model_validate(
        {
            "policy": "mg-policy/1",
            "version": 1,
            "valid_from": "2026-01-01T00:00:00Z",
            "valid_until": "2027-01-01T00:00:00Z",
            "consumer": [
                {
                    "id": f"c{at}",
                    "encryption_key": PINS[at],
                    "receipt_key": PINS[at],
                    "purpose": "carbon-emission",
                    "retention_days": 365,
                    "budget": {"rows": 1_000_000},
                }
                for at in range(consumers)
            ],
            "point": list(points),
            "secret": [{"point": one} if isinstance(one, str) else one for one in secrets],
            "relation": [
                {"name": name, "zero": list(zero)} for name, zero in (relations or {}).items()
            ],
            "derive": list(derive),
            **more,
        }
    )


def policy(*arguments: Any, **more: Any) -> CompiledPolicy:
    """The same, compiled."""
    return compile_policy(text(*arguments, **more))
