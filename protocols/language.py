"""The two languages of every text a person sees: English and Simplified Chinese."""

import os

_VARIABLES = ("MILLGATE_LANG", "LC_ALL", "LC_MESSAGES", "LANG")


def chinese() -> bool:
    """Tell whether the reader prefers Simplified Chinese.

    The first of MILLGATE_LANG, LC_ALL, LC_MESSAGES and LANG that is set decides.
    """
    chosen = next((os.environ[name] for name in _VARIABLES if os.environ.get(name)), "")
    return chosen.lower().startswith("zh")


def tr(english: str, chinese_text: str) -> str:
    """Return the text in the reader's language."""
    return chinese_text if chinese() else english
