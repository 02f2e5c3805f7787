"""Purposes a consumer may use released data for, as codes on the wire."""

from typing import Final

PURPOSES: Final = {
    "industrial-brain": 1,
    "future-factory": 2,
    "carbon-emission": 3,
    "energy-statistics": 4,
}
