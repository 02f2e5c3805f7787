"""The documents name what is there: commands, files, keys, words."""

import importlib
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import BaseModel
from typer.main import get_command

import millgate
from protocols.drivers import modbus, opcua, read_devices
from protocols.drivers.modbus.point import ModbusPoint
from protocols.drivers.opcua.point import OpcuaPoint
from protocols.points import Point
from protocols.vocabulary.measurands import MEASURANDS
from protocols.vocabulary.purposes import PURPOSES
from protocols.vocabulary.states import STATE_MODELS, OperatingState
from security.policy import account, language, words
from security.policy.clauses import (
    Also,
    Budget,
    Classes,
    Consumer,
    Derive,
    Each,
    PointRule,
    Relation,
    Release,
    SecretPoint,
)
from security.policy.compiled import STATE_PARTS
from security.policy.language import PolicyText
from security.policy.words import CLASSES
from tests.documents import ROOT, all_documents, anchors, blocks, codes, links, prose, table, text

POLICY = "docs/policy-language.md"
_USAGE_ERROR: type[Exception] = typer.BadParameter.__bases__[0]
BOTH_LANGUAGES = [
    ("README.md", "README.zh-CN.md"),
    ("SECURITY.md", "SECURITY.zh-CN.md"),
    ("CONTRIBUTING.md", "CONTRIBUTING.zh-CN.md"),
    ("docs/operations.md", "docs/operations.zh-CN.md"),
    ("docs/evidence.md", "docs/evidence.zh-CN.md"),
    ("docs/devices.md", "docs/devices.zh-CN.md"),
    ("docs/faults.md", "docs/faults.zh-CN.md"),
    ("docs/cockpit.md", "docs/cockpit.zh-CN.md"),
    ("docs/keys.md", "docs/keys.zh-CN.md"),
    ("docs/joining.md", "docs/joining.zh-CN.md"),
    ("docs/key-ceremony.md", "docs/key-ceremony.zh-CN.md"),
    ("docs/officer-guide.md", "docs/officer-guide.zh-CN.md"),
    ("docs/api.md", "docs/api.zh-CN.md"),
    ("docs/threat-model.md", "docs/threat-model.zh-CN.md"),
]


def fenced_commands(page: str) -> list[str]:
    lines = [line for block in blocks(page, "") for line in block.splitlines()]
    return [line.removeprefix("./run ") for line in lines if line.startswith("./run ")]


def mentioned_commands(page: str) -> list[str]:
    """Return the commands in running text; one that is only named is asked for its help."""
    found = [code.removeprefix("./run ") for code in codes(prose(page)) if code[:6] == "./run "]
    return [line if len(line.split()) > 2 else f"{line} --help" for line in found]


def every_command() -> Iterator[tuple[str, str]]:
    for path in all_documents():
        name = path.relative_to(ROOT).as_posix()
        for line in [*fenced_commands(text(name)), *mentioned_commands(text(name))]:
            if line.split()[0] in millgate._ROOMS:
                yield name, line


def parse(line: str) -> None:
    """Let the command line parse a command without running it; wrong words raise."""
    room, *arguments = shlex.split(line)
    module, name = millgate._ROOMS[room][0].split(":")
    command: Any = get_command(getattr(importlib.import_module(module), name))
    context = None
    while True:
        context = command.make_context(room, list(arguments), parent=context)
        if not hasattr(command, "resolve_command"):
            return
        room, command, arguments = command.resolve_command(
            context, [*context._protected_args, *context.args]
        )


@pytest.mark.parametrize(("name", "line"), sorted(set(every_command())))
def test_every_command_in_the_documents_exists_with_its_options(name: str, line: str) -> None:
    del name
    if line.endswith("--help"):
        with pytest.raises(typer.Exit) as done:
            parse(line)
        assert done.value.exit_code == 0
    else:
        parse(line)


@pytest.mark.parametrize(
    "wrong", ["agent chek mill/agent.toml", "policy sign p.toml --kee k", "demo --durations 6"]
)
def test_a_command_with_a_wrong_word_would_be_noticed(wrong: str) -> None:
    with pytest.raises(_USAGE_ERROR):
        parse(wrong)


def test_the_first_steps_that_the_page_tells_are_commands_that_exist() -> None:
    shown = re.findall(r"<code>\./run ([^<]+)</code>", text("aggregator/cockpit/index.html"))
    assert len(shown) == 4
    for line in shown:
        parse(line)


def test_every_fenced_command_of_the_readme_is_one_that_run_knows() -> None:
    for line in fenced_commands(text("README.md")):
        assert line.split()[0] in {*millgate._ROOMS, "test"}


@pytest.mark.parametrize(("english", "chinese"), BOTH_LANGUAGES)
def test_both_languages_show_the_same_commands_and_files(english: str, chinese: str) -> None:
    for kind in ("toml", "ini"):
        assert blocks(text(english), kind) == blocks(text(chinese), kind)
    assert fenced_commands(text(english)) == fenced_commands(text(chinese))
    assert headings(text(english)) == headings(text(chinese))


@pytest.mark.parametrize(
    ("english", "chinese"), [*BOTH_LANGUAGES, ("docs/series.md", "docs/series.zh-CN.md")]
)
def test_tables_in_both_languages_have_as_many_rows(english: str, chinese: str) -> None:
    assert rows_of_tables(text(english)) == rows_of_tables(text(chinese))


def rows_of_tables(page: str) -> list[int]:
    runs = re.findall(r"(?:^\|.*\n)+", prose(page), re.MULTILINE)
    return [run.count("\n") for run in runs]


@pytest.mark.parametrize("heading", ["## Modbus", "## OPC UA"])
def test_faults_cost_the_same_in_both_languages(heading: str) -> None:
    english, chinese = (
        [
            (row[0], *(re.findall(r"[\d.]+ / [\d.]+|–", cell) for cell in row[-2:]))
            for row in table(text(page), heading, header)
        ]
        for page, header in (("docs/faults.md", "| fault |"), ("docs/faults.zh-CN.md", "| 故障 |"))
    )
    assert english
    assert english == chinese


def headings(page: str) -> list[int]:
    return [len(marks) for marks in re.findall(r"^(#+) ", prose(page), re.MULTILINE)]


@pytest.mark.parametrize("path", all_documents(), ids=lambda path: path.name)
def test_every_link_leads_somewhere(path: Path) -> None:
    for link in links(path.read_text(encoding="utf-8")):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), link


def test_no_document_speaks_of_places_outside_the_project() -> None:
    for path in all_documents():
        assert not re.search(r"/work/|/tmp/", path.read_text(encoding="utf-8")), path


def test_the_readme_shows_a_device_that_the_agent_accepts(tmp_path: Path) -> None:
    device, release = blocks(text("README.md"), "toml")
    assert len(read_devices(tomllib.loads(device)["device"], tmp_path / "agent.toml")) == 1
    source = (
        'device = "meter-1"\npoint = "energy"\naddress = "holding:0"\ntype = "uint32"\n'
        'unit = "kWh"\nscale = 0.01\nmeasurand = "energy.active_import"\n'
    )
    assert PointRule.model_validate(tomllib.loads(source + release)).release is not None


# Devices.


def test_every_device_in_the_documents_is_one_that_the_agent_accepts(tmp_path: Path) -> None:
    for block in blocks(text("docs/devices.md"), "toml"):
        assert read_devices(tomllib.loads(block)["device"], tmp_path / "agent.toml")


OPCUA = {
    "id": "press",
    "kind": "opcua",
    "url": "opc.tcp://192.168.1.30",
    "points": [{"id": "a", "address": "i=2258", "type": "Int32"}],
}


@pytest.mark.parametrize("page", ["docs/devices.md", "docs/devices.zh-CN.md"])
def test_every_setting_of_an_opcua_device_is_told_with_its_default(page: str) -> None:
    words = text(page)
    pattern = r"^### (?:Device|Point) settings$|^### (?:设备|点)设置$"
    device, point = re.findall(pattern, words, re.MULTILINE)
    header = "| setting " if page == "docs/devices.md" else "| 设置 "
    told = {name: codes(row[1]) for row in table(words, device, header) for name in codes(row[0])}
    assert told.keys() == opcua.Config.model_fields.keys() - {"id", "kind"}
    for name, default in told.items():
        if not default:
            field = opcua.Config.model_fields[name]
            assert field.is_required() or field.default is None, name
            continue
        value = default[0] if default[0].startswith("[") else f'"{default[0]}"'
        mode = {"mode": "poll"} if name == "interval" else {}
        bare = opcua.Config.model_validate(OPCUA | mode)
        said = opcua.Config.model_validate(OPCUA | mode | tomllib.loads(f"{name} = {value}"))
        assert getattr(said, name) == getattr(bare, name), name
    own = OpcuaPoint.model_fields.keys() - Point.model_fields.keys()
    assert {name for row in table(words, point, header) for name in codes(row[0])} == own


MODBUS = {
    "id": "meter",
    "kind": "modbus",
    "host": "192.168.1.20",
    "points": [{"id": "a", "address": "holding:0", "type": "int16"}],
}


@pytest.mark.parametrize("page", ["docs/devices.md", "docs/devices.zh-CN.md"])
def test_every_setting_of_a_modbus_device_is_told_with_its_default(page: str) -> None:
    words = text(page)
    english = page == "docs/devices.md"
    device = "### Modbus device settings" if english else "### Modbus 设备设置"
    point = "### Modbus point settings" if english else "### Modbus 点设置"
    header = "| setting " if english else "| 设置 "
    told = {name: codes(row[1]) for row in table(words, device, header) for name in codes(row[0])}
    fields = modbus.Config.model_fields
    assert told.keys() == fields.keys() - {"id", "kind"}
    bare = modbus.Config.model_validate(MODBUS)
    for name, default in told.items():
        if not default:
            assert fields[name].is_required() or fields[name].default is None, name
            continue
        as_is = default[0].isdigit() or default[0][0] in "[{"
        value = default[0] if as_is else f'"{default[0]}"'
        line = {"serial": "/dev/ttyS0"} if name in {"baud", "parity", "stop_bits"} else {}
        more = {"transport": "rtu", **line} if line else {}
        more |= {"transport": "tls", "ca": "ca.pem"} if name == "verify" else {}
        given = {key: value for key, value in MODBUS.items() if key != "host" or not line}
        said = modbus.Config.model_validate(given | more | tomllib.loads(f"{name} = {value}"))
        assert getattr(said, name) == getattr(bare, name), name
    own = ModbusPoint.model_fields.keys() - Point.model_fields.keys()
    assert {name for row in table(words, point, header) for name in codes(row[0])} == own


# The policy language.


@pytest.mark.parametrize(
    ("heading", "model"),
    [
        ("### The whole policy", PolicyText),
        ("### `[[consumer]]`", Consumer),
        ("### `budget`", Budget),
        ("### `[[point.also]]`", Also),
        ("### `[[each]]`", Each),
        ("### `[[derive]]`", Derive),
        ("### `[[secret]]`", SecretPoint),
        ("### `[[relation]]`", Relation),
        ("### `release`", Release),
        ("### `classes`", Classes),
    ],
)
def test_every_key_of_the_policy_is_described(heading: str, model: type[BaseModel]) -> None:
    assert keys_under(heading) == set(model.model_fields)


def test_every_key_of_a_point_is_described() -> None:
    described = keys_under("### `[[point]]`: where it comes from")
    described |= keys_under("### `[[point]]`: what becomes of it")
    assert described == set(PointRule.model_fields)


def keys_under(heading: str) -> set[str]:
    return {key for row in table(text(POLICY), heading, "| key ") for key in codes(row[0])}


def test_kinds_of_measurands_are_listed_with_the_aggregates_that_fit_them() -> None:
    rows = table(text(POLICY), "### `release`", "| kind of measurand ")
    listed = {(kind, word) for kind, aggregates, _ in rows for word in codes(aggregates)}
    assert listed == {
        (kind, aggregate) for aggregate, kinds in words.FITS.items() for kind in kinds
    }
    for kind, _, names in rows:
        assert {MEASURANDS[name].kind for name in codes(names)} == {kind}


def test_the_parts_of_a_state_are_listed_in_order() -> None:
    rows = table(text(POLICY), "## 7. `state`", "| number ")
    assert tuple(codes(row[1])[0] for row in rows) == STATE_PARTS
    assert len(rows) == words.STATE_NUMBERS


def test_state_models_are_listed_with_every_code() -> None:
    listed: dict[str, dict[int, OperatingState]] = {}
    for name, row in table(text(POLICY), "## 7. `state`", "| model "):
        parts = [part.replace(",", " ").split() for part in row.split(";")]
        listed[codes(name)[0]] = {
            int(code): OperatingState[part[-1].upper()] for part in parts for code in part[:-1]
        }
    assert listed == STATE_MODELS


def test_bounds_of_the_policy_are_those_of_the_code() -> None:
    page = text(POLICY)
    rows = {row[0]: row[1] for row in table(page, "### `[[consumer]]`", "| key ")}
    for key, bounds in (("retention_days", (1, 36_500)), ("pad", (256, 65_536))):
        low, high, *_ = map(int, re.findall(r"\d+", rows[f"`{key}`"]))
        assert (low, high) == bounds
        consumer = Consumer.model_validate(example()["consumer"][0] | {key: high})
        assert getattr(consumer, key) == high
        for beyond in (low - 1, high + 1):
            with pytest.raises(ValueError, match=key):
                Consumer.model_validate(example()["consumer"][0] | {key: beyond})
    assert set(codes(rows["`purpose`"])) == set(PURPOSES)
    assert f"at most {language.MOST_RELEASED} points" in page
    assert f"at most {language.MOST_NUMBERS} numbers" in page
    raw = table(page, "### `classes`", "| key ")[0][1]
    assert [name for name in CLASSES if name in raw or name in {"general-2", "general-3"}] == [
        *CLASSES
    ]


def test_reasons_of_dropped_samples_are_all_named() -> None:
    named = {
        value for name, value in vars(account).items() if name.isupper() and isinstance(value, str)
    }
    said = prose(text(POLICY)).split("`dropped` names its reasons:")[1].split(".")[0]
    assert set(codes(said)) == named


def test_the_worked_example_is_a_policy() -> None:
    policy = PolicyText.model_validate(example())
    assert [rule.point for rule in policy.released()] == ["energy", "state"]
    assert len(policy.point) == 3


def example() -> dict[str, Any]:
    (found,) = blocks(text(POLICY), "toml")
    return tomllib.loads(found)


# Decisions.


def test_every_decision_is_numbered_short_and_in_the_index() -> None:
    pages = sorted((ROOT / "docs/decisions").glob("*.md"))
    numbers = [int(page.name[:4]) for page in pages]
    assert len(set(numbers)) == len(numbers)
    index = links(text("docs/README.md"))
    listed = [int(name[10:14]) for name in index if name.startswith("decisions/0")]
    assert listed == numbers
    for page in pages:
        words = page.read_text(encoding="utf-8")
        assert words.startswith(f"# {page.name[:4]} ")
        assert [line for line in words.splitlines() if line.startswith("## ")] == [
            "## Context",
            "## Decision",
            "## Consequences",
        ]
        assert len(words.split()) <= 450
        assert f"decisions/{page.name}" in index


def test_every_runtime_dependency_has_its_reason() -> None:
    rows = table(text("docs/decisions/0002-runtime-dependencies.md"), "", "| package ")
    project = tomllib.loads(text("pyproject.toml"))["project"]
    needed = {re.split(r"[<>=\[]", name)[0] for name in project["dependencies"]}
    assert {row[0] for row in rows} == needed
