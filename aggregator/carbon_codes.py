"""Carbon efficiency codes (碳效码): from L and K to level and grade, by replaceable profiles."""

from decimal import Decimal
from importlib import resources
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from aggregator.factors import Grade
from protocols.errors import ConfigError, MillgateError
from protocols.language import tr
from protocols.settings import Strict, load_settings


class Level(Strict):
    """A level of L; the last has no edge."""

    name: str
    zh: str
    edge: Decimal | None = None


class Grades(Strict):
    """Edges of K between grades, ascending; one more grade than edges."""

    edges: list[Annotated[Decimal, Field(gt=0)]]


class CodeProfile(Strict):
    """One method of grading."""

    id: str
    publication: str
    grade: Grade
    source: str
    level: list[Level]
    grades: Grades

    @model_validator(mode="after")
    def _ascending(self) -> "CodeProfile":
        edges = [level.edge for level in self.level[:-1] if level.edge is not None]
        whole = len(edges) == len(self.level) - 1 and self.level[-1].edge is None
        if not whole or edges != sorted(edges) or self.grades.edges != sorted(self.grades.edges):
            raise ValueError(tr("edges must ascend, the last has none", "阈值须递增，末级无阈值"))
        return self

    def level_of(self, carbon: Decimal) -> str:
        """Return the level of L; a value on an edge belongs to the better one."""
        return next(
            level.name for level in self.level if level.edge is None or carbon <= level.edge
        )

    def grade_of(self, ratio: Decimal) -> int:
        """Return the grade of K, 1 is best; a value on an edge belongs to the better one."""
        return 1 + sum(ratio > edge for edge in self.grades.edges)


def find_profile(name: str, folder: Path) -> CodeProfile:
    """Return a shipped profile by id, or the one in a file beside the configuration.

    Raises:
        ConfigError: there is none, or the file is faulty.
    """
    if name.endswith(".toml"):
        return load_settings(folder / name, CodeProfile)
    known = {}
    for entry in resources.files("configs.carbon_codes").iterdir():
        if entry.name.endswith(".toml"):
            with resources.as_file(entry) as path:
                one = load_settings(Path(path), CodeProfile)
            known[one.id] = one
    if name not in known:
        names = ", ".join(sorted(known))
        fault = MillgateError(
            tr(f"there is no carbon code profile '{name}'", f"没有碳效码方法 '{name}'"),
            where="carbon.code_profile",
            remedy=tr(
                f"use one of {names}, or the name of your own .toml file",
                f"可用：{names}，或您自己的 .toml 文件名",
            ),
        )
        raise ConfigError([fault])
    return known[name]
