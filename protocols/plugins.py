"""Modules of a package that are each one kind of something, found by their names."""

import importlib
import pkgutil
from collections.abc import Iterable
from types import ModuleType


class Plugins:
    """The kinds that a package has.

    Args:
        package: its name.
        path: its `__path__`.
    """

    def __init__(self, package: str, path: Iterable[str]) -> None:
        self._package = package
        self._path = path

    def kinds(self) -> list[str]:
        """Return the names of all kinds there are, without importing them."""
        return sorted(module.name for module in pkgutil.iter_modules(self._path))

    def load(self, kind: str) -> ModuleType:
        """Import the module of that kind.

        Raises:
            KeyError: when there is none.
        """
        if kind not in self.kinds():
            raise KeyError(kind)
        return importlib.import_module(f"{self._package}.{kind}")
