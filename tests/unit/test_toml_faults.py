"""Files as people save them: what is wrong is told where, in words, with the way out."""

from pathlib import Path
from typing import get_args, get_origin

import pytest
from pydantic import BaseModel

from agent.config import _AgentFile
from aggregator.config import _AggregatorFile
from protocols.errors import ConfigError
from protocols.language import spoken_to
from protocols.settings import read_toml
from protocols.toml_faults import SEVERAL
from security.policy.clauses import PointRule
from security.policy.language import PolicyText

GOOD = '[spool]\nfolder = "data"  # 数据，见说明\nnames = ["一", "二，三"]\n'


def told(path: Path, *, chinese: bool = False) -> str:
    with pytest.raises(ConfigError) as caught, spoken_to(chinese=chinese):
        read_toml(path)
    return str(caught.value).replace(str(path), "FILE")


@pytest.mark.parametrize(
    "data",
    [
        GOOD.encode(),
        b"\xef\xbb\xbf" + GOOD.encode(),
        GOOD.replace("\n", "\r\n").encode(),
        GOOD.replace("folder = ", "\tfolder\t=\t").encode(),
    ],
    ids=["plain", "byte order mark", "CRLF", "tabs"],
)
def test_what_editors_add_does_no_harm(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(data)
    assert read_toml(path)["spool"]["folder"] == "data"


@pytest.mark.parametrize(
    ("line", "chinese", "english"),
    [
        (
            'a ＝ "1s"',
            "有全角符号“＝” — 请改为半角 '='",
            "full-width sign '＝' — write '=' instead",
        ),
        ("a = “1s”", "有全角符号“““ — 请改为半角 '\"'".replace("“““", "““”"), "write '\"' instead"),
        ('a = ["x"，"y"]', "有全角符号“，” — 请改为半角 ','", "write ',' instead"),
        ("【a】", "有全角符号“【” — 请改为半角 '['", "write '[' instead"),
        ("a = １", "有全角符号“１” — 请改为半角 '1'", "write '1' instead"),
        ("a　= 1", "有全角符号“　” — 请改为半角 空格", "write a space instead"),
        ("a = modbus", 'a：文本未加引号 — 请写 a = "modbus"', 'write a = "modbus"'),
        ("a = True", "a：没有 'True' — 请写 a = true", "write a = true"),
        ("a = 10.1.2.3  # x", 'a：文本未加引号 — 请写 a = "10.1.2.3"', 'write a = "10.1.2.3"'),
        ("a = 否", "a：没有 '否' — 请写 a = false", "write a = false"),
        ('a = "x', "a：引号未闭合", "a: a quote is not closed"),
        (
            "a = 1\na = 2",
            "a：重复，第 4 行已有 — 请删除其一",
            "a: is there already, in line 4 — remove one",
        ),
        ("a = {b = 1, b = 2}", "a.b：重复 — 请删除其一", "a.b: is there twice — remove one"),
        ("单位 = 1", "没有键“单位” — 键须为英文", "there is no key '单位'"),
        ("hello", "“hello”缺少 '=' — 请写 键 = 值", "'hello' has no '='"),
    ],
)
def test_a_slip_is_named_with_its_line_and_what_to_write(
    tmp_path: Path, line: str, chinese: str, english: str
) -> None:
    path = tmp_path / "a.toml"
    path.write_text(GOOD + line + "\n", "utf-8")
    at = 4 + line.count("\n")
    assert told(path, chinese=True).startswith(f"FILE:{at}: ")
    assert chinese in told(path, chinese=True)
    assert english in told(path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[local]\na = 1\n[local]\nb = 2\n", "3: [local]: is there already, in line 1 — keep one [local]"),
        ("[local]\na = 1\n[[local]]\nb = 2\n", "3: [local]: is there already, in line 1 — keep one [local]"),
        ("[broker]\na = 1\n[broker]\nb = 2", "3: [broker]: is there already, in line 1 — write [[broker]]"),
        ("[broker]\na = 1\n[[broker]]\nb = 2", "3: [broker]: is there already, in line 1 — write [[broker]]"),
        ("[[point]]\na = 1\n[point]\nb = 2", "3: [point]: is there already, in line 1 — write [[point]]"),
        ("[[point]]\na = 1\na = 2", "3: a: is there already, in line 2 — remove one of them, or write [[point]]"),
        ("[api]\na = 1\na = 2", "3: a: is there already, in line 2 — remove one of them"),
        ("a = 1\n[b]\na = 2\na = 3\n", "4: a: is there already, in line 3 — remove one of them"),
    ],
)  # fmt: skip
def test_what_is_there_twice_is_told_with_both_lines_and_what_to_make_of_it(
    tmp_path: Path, text: str, says: str
) -> None:
    path = tmp_path / "a.toml"
    path.write_text(text, "utf-8")
    assert says in told(path)
    assert told(path).endswith(("them", "both", "several", "begins"))


def test_tables_that_may_be_several_are_those_of_the_models() -> None:
    found = {"broker", "device", "device.points"}
    for model, above in (
        (_AgentFile, ""),
        (_AggregatorFile, ""),
        (PolicyText, ""),
        (PointRule, "point."),
    ):
        for name, field in model.model_fields.items():
            inner = get_args(field.annotation)[:1]
            if get_origin(field.annotation) is list and issubclass(inner[0], BaseModel):
                found.add(above + name)
    assert found == SEVERAL


def test_full_width_signs_in_texts_and_remarks_are_not_blamed(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text('a = "，＝"  # ＝\nb = [1, 2 # ，\nc = 3\n', "utf-8")
    assert "full-width" not in told(path)


@pytest.mark.parametrize(("encoding", "name"), [("gb18030", "GBK"), ("utf-16", "UTF-16")])
def test_another_encoding_is_named_with_what_to_do(
    tmp_path: Path, encoding: str, name: str
) -> None:
    path = tmp_path / "a.toml"
    path.write_text(GOOD, encoding)
    assert told(path) == (
        f"FILE: is not UTF-8 text (it seems to be {name}) — save it as UTF-8 in the editor"
    )
