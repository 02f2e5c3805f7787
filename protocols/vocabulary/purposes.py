"""Purposes a consumer may use released data for, as codes on the wire."""

from typing import Final

from protocols.language import tr

PURPOSES: Final = {
    "industrial-brain": 1,
    "future-factory": 2,
    "carbon-emission": 3,
    "energy-statistics": 4,
}


def purpose_words(code: int) -> str:
    """Return a purpose as people call it; the bare code where there is none of it."""
    words = {
        1: tr("the industrial brain", "产业大脑"),
        2: tr("the future factory programme", "未来工厂"),
        3: tr("carbon emission", "碳排放"),
        4: tr("energy statistics", "能源统计"),
    }
    return words.get(code, str(code))
