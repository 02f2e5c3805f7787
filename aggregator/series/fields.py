"""Which fields the rows of each measurement may have, as docs/series.md describes them."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

_STATES: Final = (
    "run_s setup_s idle_s starved_s held_s fault_s planned_down_s off_s unknown_s state_code state"
)
_EMISSION: Final = "co2e_kg factor_value factor_unit factor_grade green_share"
_WINDOW: Final = "window_s span_s coverage quality"

_OWN: Final = {
    "ff_reading": "value",
    "ff_equipment_state": _STATES,
    "ff_energy": "energy energy_tce power_avg_kw method",
    "ff_refused": "reason",
    "ff_production": "qty_total qty_good qty_scrap qty_rework cycles",
    "ff_quality": "inspected passed fpy scrap_ratio",
    "ff_oee": (
        "apt_s aupt_s pbt_s qty_total qty_good net_s valuable_s availability performance "
        "quality_ratio oee nee utilization_eff allocation_eff technical_eff"
    ),
    "ff_power": "power_max_kw power_avg_kw method",
    "ff_connectivity": "devices_total devices_online digital_rate",
    "ff_check": "status value reason",
    "ff_fact": "value unit until source entered",
    "ce_activity": "activity unit",
    "ce_emission": _EMISSION,
    "ce_superseded": _EMISSION,
    "ce_balance": "main sub_sum unallocated residual_ratio",
    "ce_quality": "estimated_share freshness_s verified",
    "ce_intensity": "kgco2e_per_unit co2e_kg quantity L level K grade code_profile",
}

FIELDS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {name: frozenset(f"{fields} {_WINDOW}".split()) for name, fields in _OWN.items()}
)
"""Measurement -> its fields; which of them a row has is another question."""
