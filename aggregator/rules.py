"""What series are computed with: factors, coal equivalents, tariff, local time, grading."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aggregator.carbon_codes import find_profile
from aggregator.config import AggregatorConfig
from aggregator.factors import Factors, shipped_equivalents
from aggregator.localtime import LocalTime
from aggregator.revisions import CarbonRules
from aggregator.series.derived.site import Context
from aggregator.series.future_factory import EnergyTerms
from aggregator.tariffs import Tariff, find_tariff
from protocols.errors import ConfigError, MillgateError, Misfit
from protocols.settings import fault_at

_KEY: Final = re.compile(r"[a-z_]+\.[a-z_]+")


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of one configuration.

    Attributes:
        digest: changes with anything in here, also with the content of data files.
    """

    carbon: CarbonRules
    factors: Factors
    terms: EnergyTerms
    context: Context
    digest: str


def read_rules(config: AggregatorConfig) -> Rules:
    """Return what a configuration means.

    Raises:
        ConfigError: a name is not known, or a file is faulty.
    """
    try:
        return _rules(config)
    except ConfigError as error:
        raise ConfigError([_placed(fault, config.path) for fault in error.faults]) from None


def _placed(fault: MillgateError, path: Path) -> MillgateError:
    """Return a fault that names a key of aggregator.toml with the line of that key."""
    if _KEY.fullmatch(fault.where) is None:
        return fault
    return fault_at(path, Misfit(fault.what, fault.remedy, tuple(fault.where.split("."))))


def _rules(config: AggregatorConfig) -> Rules:
    folder = config.path.absolute().parent
    names = config.carbon
    carbon = CarbonRules.shipped(names.region, names.wider, names.factor_set, names.fuel_set)
    coal = shipped_equivalents()
    profile = find_profile(names.code_profile, folder)
    parts = [carbon.digest(), coal.model_dump_json(), profile.model_dump_json(), config.local.zone]
    tariff = None
    if config.tariff.calendar:
        file = find_tariff(config.tariff.calendar, folder)
        tariff = Tariff(file, config.tariff.holidays)
        parts += [file.model_dump_json(), config.tariff.model_dump_json()]
    local = LocalTime(config.local.zone)
    factors = carbon.factors()
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    registers = {str(name): str(period) for name, period in config.tariff.registers.items()}
    context = Context(local, factors, profile, tariff, registers)
    return Rules(carbon, factors, EnergyTerms(coal.by_unit, tariff), context, digest)


def facts_path(config: AggregatorConfig) -> Path:
    """Return the file of facts that people entered."""
    return config.ledger.with_name("facts.csv")


def calendars_folder(config: AggregatorConfig) -> Path:
    """Return the folder of shift calendars."""
    return config.path.absolute().parent / "calendars"
