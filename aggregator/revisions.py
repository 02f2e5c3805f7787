"""Revisions of the emission factors: what was used before, so that results can be told apart.

When factors change, every result is computed anew, and what the old ones gave is kept under another
name. Both follow from the ledger, so the old factors themselves are kept here.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from pydantic import Field, ValidationError

from aggregator.factors import Factors, FactorSet, FuelSet, fuel_set, shipped_sets
from protocols.errors import MillgateError
from protocols.language import tr
from protocols.settings import Strict

_MOST: Final = 8
"""Older revisions are forgotten; their results go with them when series are written anew."""


class CarbonRules(Strict):
    """Everything that decides which factor an activity gets.

    Attributes:
        sets: the factor sets, cut down to the regions in question.
    """

    region: str
    wider: list[str]
    explicit: str
    sets: list[FactorSet]
    fuels: FuelSet | None

    @staticmethod
    def shipped(region: str, wider: list[str], explicit: str, fuels: str) -> "CarbonRules":
        """Return the rules that a configuration means.

        Raises:
            ConfigError: a name is not known.
        """
        sets = shipped_sets()
        found = fuel_set(fuels) if fuels else None
        # Tells what is not there before anything is cut down.
        Factors(sets, region, explicit, found, tuple(wider))
        regions = {region, *wider, region.partition("-")[0], "*"}
        cut = [
            one.model_copy(
                update={"factor": [each for each in one.factor if each.region in regions]}
            )
            for _, one in sorted(sets.items())
        ]
        return CarbonRules(region=region, wider=wider, explicit=explicit, sets=cut, fuels=found)

    def factors(self) -> Factors:
        """Return the choice of factors under these rules."""
        sets = {one.id: one for one in self.sets}
        return Factors(sets, self.region, self.explicit, self.fuels, tuple(self.wider))

    def digest(self) -> str:
        """Return what changes with anything in here."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


class _Past(Strict):
    revision: int = Field(ge=1)
    up_to: int = Field(ge=1)
    rules: CarbonRules


class _File(Strict):
    current: CarbonRules
    revision: int = Field(ge=1)
    past: list[_Past] = Field(default=[])


@dataclass(frozen=True)
class Revision:
    """Factors that were replaced.

    Attributes:
        number: from 1 on.
        up_to: the last batch whose results they gave.
    """

    number: int
    up_to: int
    rules: CarbonRules

    @cached_property
    def factors(self) -> Factors:
        """The choice under them."""
        return self.rules.factors()


class Revisions:
    """Keeps the revisions in a file, written atomically.

    Args:
        path: the file.
        current: the rules of today.
    """

    def __init__(self, path: Path, current: CarbonRules) -> None:
        self._path = path
        self._current = current
        self.past: list[Revision] = []

    def note(self, projected: int) -> None:
        """Compare with what was used last, and remember that where it differs.

        Args:
            projected: the last batch that has results; 0 for none.

        Raises:
            MillgateError: the file is damaged.
        """
        known = self._read()
        if known is None:
            known = _File(current=self._current, revision=1)
            self._write(known)
        elif known.current.digest() != self._current.digest():
            past = known.past
            if projected:
                past = [*past, _Past(revision=known.revision, up_to=projected, rules=known.current)]
            known = _File(current=self._current, revision=known.revision + 1, past=past[-_MOST:])
            self._write(known)
        self.past = [Revision(one.revision, one.up_to, one.rules) for one in known.past]

    def _read(self) -> _File | None:
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            return _File.model_validate(json.loads(content.decode("utf-8")))
        except (ValueError, ValidationError):
            raise MillgateError(
                tr("the file of factor revisions is damaged", "排放因子版本文件已损坏"),
                where=str(self._path),
                remedy=tr(
                    "restore it from a backup, or remove it: superseded results are then gone",
                    "请从备份恢复，或将其删除：被取代的结果将不再保留",
                ),
            ) from None

    def _write(self, content: _File) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        part = self._path.with_name(f".{self._path.name}.part")
        with part.open("w", encoding="utf-8") as file:
            file.write(content.model_dump_json())
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._path)
