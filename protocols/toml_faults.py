"""What is wrong with a file that is not TOML, in words for who wrote it.

The parser says where it stopped. What stands there is mostly a sign of a Chinese input method, or one of
a few slips that everybody makes.
"""

import re
import unicodedata
from collections.abc import Callable
from typing import Final

from protocols.language import tr

_PLACE: Final = re.compile(r"\(at line (\d+), column (\d+)\)")
_ASCII: Final = str.maketrans(
    {"“": '"', "”": '"', "‘": "'", "’": "'", "、": ",", "。": ".", "【": "[", "】": "]", "　": " "}
)
_TEXT: Final = re.compile(r"""("(?:[^"\\]|\\.)*"|'[^']*')""")
_SWITCHES: Final = {
    **dict.fromkeys(("true", "yes", "on", "是", "开"), "true"),
    **dict.fromkeys(("false", "no", "off", "否", "关"), "false"),
}
_ADDRESS: Final = re.compile(r"\d+(\.\d+){3}(:\d+)?")
_SHOWN: Final = 20
_WIDEST: Final = 60
_HEADER: Final = re.compile(r"\s*\[{1,2}\s*([^\[\]]+?)\s*\]")
_INLINE: Final = re.compile(r"Duplicate inline table key '(.*)'")
_REPEATS: Final = ("Cannot ", "Duplicate ")
SEVERAL: Final = frozenset(
    {
        *("broker", "consumer", "device", "device.points"),
        *("point", "point.also", "each", "derive", "secret", "relation"),
    }
)
"""Tables of which there may be several: the parser knows no model that would tell."""

_ENCODINGS: Final = {"utf-16": (b"\xff\xfe", b"\xfe\xff"), "gb18030": ()}


def read_text(data: bytes) -> str:
    """Return a file's text with line feeds; a byte order mark, as some editors write it, is none of it.

    Raises:
        UnicodeDecodeError: when it is not UTF-8.
    """
    return data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")


def encoding_fault(data: bytes) -> tuple[str, str]:
    """Return what a file that is not UTF-8 seems to be, and the remedy."""
    what = tr("is not UTF-8 text", "不是 UTF-8 文本")
    save = tr("save it as UTF-8 in the editor", "请在编辑器中另存为 UTF-8")
    for name, marks in _ENCODINGS.items():
        if marks and not data.startswith(marks):
            continue
        try:
            data.decode(name)
        except UnicodeDecodeError:
            continue
        kind = "UTF-16" if marks else "GBK"
        return f"{what} ({tr('it seems to be', '似为')} {kind})", save
    return what, save


def toml_fault(text: str, said: str) -> tuple[int | None, str, str]:
    """Explain what the parser said.

    Args:
        text: the file.
        said: the parser's message.

    Returns:
        The line, counted from 1, None for the end of the file; what is wrong; the remedy.
    """
    match = _PLACE.search(said)
    number, column = (int(match[1]), int(match[2])) if match else (None, 0)
    lines = text.splitlines()
    line = lines[number - 1] if number is not None and number <= len(lines) else ""
    before = number or len(lines)
    # What was opened in a line before, such as a list, is missed only here.
    near = [line, *lines[max(before - 4, 0) : max(before - 1, 0)]]
    found = next(filter(None, map(_full_width_in, near)), None)
    if found is not None:
        return number, *full_width_fault(*found)
    key, _, value = line.partition("=")
    if _ADDRESS.fullmatch(value.partition("#")[0].strip()):
        return number, *_unquoted(key.strip(), value.partition("#")[0].strip())
    if said.startswith(_REPEATS):
        return before, *_twice(lines, before, said)
    for sign, explain in _SLIPS:
        if sign in said:
            return number, *explain(line, column)
    return number, tr("is not valid TOML", "不是有效的 TOML"), said


def full_width(text: str) -> tuple[str, str] | None:
    """Return the first sign of a text that has a half-width form, and that form."""
    for sign in text:
        plain = sign.translate(_ASCII)
        plain = unicodedata.normalize("NFKC", plain) if plain == sign else plain
        if plain != sign and plain.isascii():
            return sign, plain
    return None


def full_width_fault(wrong: str, right: str) -> tuple[str, str]:
    """Return what is wrong with a full-width sign, and the remedy."""
    shown = tr("a space", "空格") if right == " " else f"'{right}'"
    what = tr(f"the full-width sign '{wrong}'", f"有全角符号“{wrong}”")
    return what, tr(f"write {shown} instead", f"请改为半角 {shown}")


def _full_width_in(line: str) -> tuple[str, str] | None:
    """Return the first such sign of a line that is in no text and no comment."""
    for part in _TEXT.split(line)[::2]:
        found = full_width(part.partition("#")[0])
        if found is not None or "#" in part:
            return found
    return None


def _unquoted(key: str, word: str) -> tuple[str, str]:
    word = word if len(word) <= _WIDEST else "…"
    what = tr(f"{key}: a text without quotes", f"{key}：文本未加引号")
    return what, tr(f'write {key} = "{word}"', f'请写 {key} = "{word}"')


def _value(line: str, _: int) -> tuple[str, str]:
    key, value = line.split("=", 1) if "=" in line else (line, "")
    word = value.partition("#")[0].strip()
    if word.lower() in _SWITCHES:
        what = tr(f"{key.strip()}: there is no '{word}'", f"{key.strip()}：没有 '{word}'")
        right = f"{key.strip()} = {_SWITCHES[word.lower()]}"
        return what, tr(f"write {right}", f"请写 {right}")
    if re.fullmatch(r"[^\W\d][^\"'\[\]{}]*", word):
        return _unquoted(key.strip(), word)
    what = tr(f"{key.strip()}: this is no value", f"{key.strip()}：不是有效的值")
    return what, tr("look at quotes, brackets and commas", "请检查引号、括号与逗号")


def _twice(lines: list[str], number: int, said: str) -> tuple[str, str]:
    """Explain what is there twice; what is first in which line, and whether there may be several."""
    line = lines[number - 1]
    header, inline = _HEADER.match(line), _INLINE.search(said)
    if header is not None:
        name = header[1]
        first = next((at for at in range(1, number) if _named(lines[at - 1]) == name), 0)
        if name in SEVERAL:
            remedy = tr(f"write [[{name}]] for each of several", f"有多个时，每个都写作 [[{name}]]")
        else:
            remedy = tr(
                f"keep one [{name}], with the keys of both", f"只保留一个 [{name}]，把键合并到其中"
            )
        return _again(f"[{name}]", first), remedy
    above = next((at for at in range(number - 1, 0, -1) if _HEADER.match(lines[at - 1])), 0)
    key = line.partition("=")[0].strip()
    within = range(above + 1, number)
    first = next((at for at in within if lines[at - 1].partition("=")[0].strip() == key), 0)
    remedy = tr("remove one of them", "请删除其一")
    table = _named(lines[above - 1]) if above else ""
    if table in SEVERAL and inline is None:
        remedy = tr(
            f"{remedy}, or write [[{table}]] above it where another one begins",
            f"{remedy}；若从这里开始是另一个，请在其上方写 [[{table}]]",
        )
    return _again(f"{key}.{inline[1]}", 0) if inline else _again(key, first), remedy


def _again(name: str, first: int) -> str:
    if not first:
        return tr(f"{name}: is there twice", f"{name}：重复")
    return tr(f"{name}: is there already, in line {first}", f"{name}：重复，第 {first} 行已有")


def _named(line: str) -> str:
    """Return the table that a line is the header of; empty where it is none."""
    header = _HEADER.match(line)
    return header[1] if header else ""


def _open_text(line: str, _: int) -> tuple[str, str]:
    name = line.partition("=")[0].strip()
    what = tr(f"{name}: a quote is not closed", f"{name}：引号未闭合")
    return what, tr("put the same quote at its end", "请在末尾补上同样的引号")


def _open_list(*_: object) -> tuple[str, str]:
    what = tr("a bracket is not closed", "括号未闭合")
    return what, tr("look at brackets and commas", "请检查括号与逗号")


def _statement(line: str, _: int) -> tuple[str, str]:
    word = line.strip()[:_SHOWN]
    key = line.partition("=")[0].strip()
    if "=" in line and not key.isascii():
        what = tr(f"there is no key '{key}'", f"没有键“{key}”")
        return what, tr("keys are English words", "键须为英文")
    what = tr(f"'{word}' is neither a table nor a key", f"“{word}”既不是表也不是键")
    return what, tr(
        "write [table], key = value, or # before a remark", "请写 [表]、键 = 值，备注前加 #"
    )


def _equals(line: str, _: int) -> tuple[str, str]:
    word = line.strip()[:_SHOWN]
    what = tr(f"'{word}' has no '='", f"“{word}”缺少 '='")
    return what, tr("write key = value, or # before a remark", "请写 键 = 值，备注前加 #")


_SLIPS: Final[tuple[tuple[str, Callable[[str, int], tuple[str, str]]], ...]] = (
    ("Illegal character", _open_text),
    ("Unterminated string", _open_text),
    ("Unclosed", _open_list),
    ("Invalid value", _value),
    ("Invalid statement", _statement),
    ("Expected '=' after a key", _equals),
)
