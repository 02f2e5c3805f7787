"""A wrapper that keeps a value out of logs, tracebacks and files by accident."""

from typing import Generic, NoReturn, TypeVar

T = TypeVar("T")

_REDACTED = "<secret>"


class Secret(Generic[T]):
    """Holds a value; only `reveal` gives it back."""

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value = value

    def reveal(self) -> T:
        """Return the value."""
        return self._value

    def __repr__(self) -> str:
        return _REDACTED

    def __format__(self, _spec: str) -> str:
        return _REDACTED

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled")
