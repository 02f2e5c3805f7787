"""The formulas of ISO 22400-2 in one place, for the factory's edge and for the brain.

Read from the OWL transcription of the standard by HSU Hamburg (ISO22400-2.owl, commit 54c749b).
All arguments and results are float64 of the same shape; NaN means not known and stays NaN, and so
does a ratio whose denominator is not above 0: what cannot be computed is absent, never 0.

Elements: APT actual production time, AUST actual setup time, AUPT = APT + AUST, ADET actual delay
time, PBT planned busy time, AUBT actual busy time, AOET actual order execution time, all in
seconds; PRU planned run time per unit, seconds; PQ produced, GQ good, SQ scrap, RQ rework, GP good
parts at the first inspection, IP inspected parts, in the same unit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from protocols.frame import Floats


def ratio(part: Floats, whole: Floats) -> Floats:
    """Return part / whole; NaN where either is not known or `whole` is not above 0."""
    usable = whole > 0
    return np.where(usable, part / np.where(usable, whole, 1.0), np.nan)


def availability(apt: Floats, pbt: Floats) -> Floats:
    """APT / PBT."""
    return ratio(apt, pbt)


def effectiveness(pru: Floats, pq: Floats, apt: Floats) -> Floats:
    """PRU x PQ / APT: also called performance; can exceed 1."""
    return ratio(pru * pq, apt)


def quality_ratio(gq: Floats, pq: Floats) -> Floats:
    """GQ / PQ."""
    return ratio(gq, pq)


def oee(gq: Floats, pru: Floats, pbt: Floats) -> Floats:
    """Availability x effectiveness x quality ratio = GQ x PRU / PBT, since APT and PQ cancel."""
    return ratio(gq * pru, pbt)


def nee(aupt: Floats, apt: Floats, gq: Floats, pru: Floats, pbt: Floats) -> Floats:
    """AUPT / PBT x effectiveness x quality ratio: setup is no loss, so it is never below OEE."""
    return ratio(aupt, pbt) * ratio(gq * pru, apt)


def utilization_efficiency(apt: Floats, aubt: Floats) -> Floats:
    """APT / AUBT."""
    return ratio(apt, aubt)


def allocation_efficiency(aubt: Floats, pbt: Floats) -> Floats:
    """AUBT / PBT."""
    return ratio(aubt, pbt)


def technical_efficiency(apt: Floats, adet: Floats) -> Floats:
    """APT / (APT + ADET)."""
    return ratio(apt, apt + adet)


def setup_ratio(aust: Floats, aupt: Floats) -> Floats:
    """AUST / AUPT."""
    return ratio(aust, aupt)


def scrap_ratio(sq: Floats, pq: Floats) -> Floats:
    """SQ / PQ."""
    return ratio(sq, pq)


def rework_ratio(rq: Floats, pq: Floats) -> Floats:
    """RQ / PQ."""
    return ratio(rq, pq)


def first_pass_yield(gp: Floats, ip: Floats) -> Floats:
    """GP / IP."""
    return ratio(gp, ip)


def throughput_rate(pq: Floats, aoet: Floats) -> Floats:
    """PQ / AOET, per second."""
    return ratio(pq, aoet)


def energy_per_unit(energy: Floats, pq: Floats) -> Floats:
    """Energy / PQ: 单位产品综合能耗 (GB/T 2589), not a clause of ISO 22400-2."""
    return ratio(energy, pq)


@dataclass(frozen=True, slots=True)
class Formula:
    """One key figure.

    Attributes:
        text: the formula.
        inputs: names of the elements in the order of the function's arguments.
        en, zh: for people.
    """

    text: str
    inputs: tuple[str, ...]
    en: str
    zh: str
    compute: Callable[..., Floats]


FORMULAS: Final = {
    "availability": Formula("APT / PBT", ("apt", "pbt"), "availability", "可用率", availability),
    "effectiveness": Formula(
        "PRU * PQ / APT", ("pru", "pq", "apt"), "effectiveness", "性能率", effectiveness
    ),
    "quality_ratio": Formula("GQ / PQ", ("gq", "pq"), "quality ratio", "合格率", quality_ratio),
    "oee": Formula(
        "GQ * PRU / PBT",
        ("gq", "pru", "pbt"),
        "overall equipment effectiveness",
        "设备综合效率",
        oee,
    ),
    "nee": Formula(
        "(AUPT / PBT) * (GQ * PRU / APT)",
        ("aupt", "apt", "gq", "pru", "pbt"),
        "net equipment effectiveness",
        "设备净效率",
        nee,
    ),
    "utilization_efficiency": Formula(
        "APT / AUBT",
        ("apt", "aubt"),
        "utilization efficiency",
        "利用效率",
        utilization_efficiency,
    ),
    "allocation_efficiency": Formula(
        "AUBT / PBT", ("aubt", "pbt"), "allocation efficiency", "分配效率", allocation_efficiency
    ),
    "technical_efficiency": Formula(
        "APT / (APT + ADET)",
        ("apt", "adet"),
        "technical efficiency",
        "技术效率",
        technical_efficiency,
    ),
    "setup_ratio": Formula(
        "AUST / AUPT", ("aust", "aupt"), "setup ratio", "准备时间比", setup_ratio
    ),
    "scrap_ratio": Formula("SQ / PQ", ("sq", "pq"), "scrap ratio", "报废率", scrap_ratio),
    "rework_ratio": Formula("RQ / PQ", ("rq", "pq"), "rework ratio", "返工率", rework_ratio),
    "first_pass_yield": Formula(
        "GP / IP", ("gp", "ip"), "first pass yield", "一次合格率", first_pass_yield
    ),
    "throughput_rate": Formula(
        "PQ / AOET", ("pq", "aoet"), "throughput rate", "产出率", throughput_rate
    ),
    "energy_per_unit": Formula(
        "E / PQ", ("energy", "pq"), "energy per unit", "单位产品能耗", energy_per_unit
    ),
}
"""All figures by name."""
