"""The vocabulary's data files, read and checked once."""

import tomllib
from importlib import resources
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict

_PACKAGE: Final = "configs.vocabulary"


class Table(BaseModel):
    """Base of the files' models: unknown keys are faults, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Model = TypeVar("Model", bound=Table)


def read_table(name: str, model: type[Model]) -> Model:
    """Return one file of the vocabulary, such as `units.toml`.

    Raises:
        ValueError: it is not what the model says; shipped files always are.
    """
    return model.model_validate(_read(_PACKAGE, name))


def read_tables(folder: str, model: type[Model]) -> dict[str, Model]:
    """Return all files of a folder of the vocabulary, by name without `.toml`."""
    package = f"{_PACKAGE}.{folder}"
    names = sorted(
        entry.name for entry in resources.files(package).iterdir() if entry.name.endswith(".toml")
    )
    return {
        name.removesuffix(".toml"): model.model_validate(_read(package, name)) for name in names
    }


def _read(package: str, name: str) -> dict[str, Any]:
    return tomllib.loads((resources.files(package) / name).read_text(encoding="utf-8"))
