"""Settings: every fault of a file at once, each with file, line, key path and remedy."""

import os
import re
import subprocess
import sys
from pathlib import Path
from string import Template

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from agent.config import read_config
from aggregator.config import read_config as read_aggregator
from protocols.errors import ConfigError
from protocols.settings import (
    Duration,
    Strict,
    key_lines,
    load_settings,
    parse_duration,
    read_toml,
)
from protocols.templates import template
from security.cards import write_card
from security.keys import create_key_file
from tests.small_factory import Keys

KEYS = Keys()
ROOT = Path(__file__).parents[2]

DEVICE = """\
[[device]]
id = "main-meter"
kind = "modbus"
host = "127.0.0.1"
port = 1502
unit = 1
interval = "1s"
timeout = "500ms"
order = "CDAB"
max_registers = 64
max_gap = 4

[[device.points]]
id = "energy"
address = "holding:0"
type = "uint32"
scale = 0.01
unit = "kWh"
measurand = "energy.active_import"
counter = { rollover = 1000000, on_reset = "rebase" }

[[device.points]]
id = "power"
address = "input:8"
type = "float32"
unit = "kW"
measurand = "power.active"
offset = -1.5
cadence = "1m"

[[device]]
id = "machine"
kind = "opcua"
url = "opc.tcp://127.0.0.1:4840"
security = "none"

[[device.points]]
id = "state"
address = "nsu=urn:mill;s=State"
type = "Int32"
measurand = "machine.state"
state_model = "operating"
"""


def write_agent(folder: Path) -> Path:
    """Make a folder whose agent.toml is right, with one device of each kind."""
    folder.mkdir(parents=True, exist_ok=True)
    write_card(folder / "brain.card", KEYS.brain_card)
    for name, kind in (("signing", "ed25519"), ("gate", "aes256"), ("attestation", "mldsa65")):
        if not (folder / "keys" / f"{name}.key").exists():
            create_key_file(folder / "keys" / f"{name}.key", kind)  # type: ignore[arg-type] # three of the literals
    values = {
        "factory": KEYS.address.factory.hex(),
        "agent": KEYS.address.agent.hex(),
        "officers": f'    "{KEYS.officers[0].public.to_text()}",\n',
        "audit_key": KEYS.audit.public.to_text(),
        "broker_host": "127.0.0.1",
        "threshold": "1",
        "broker_port": "1883",
        "protocol": "mqtt311",
        "consumers": '[[consumer]]\ncard = "brain.card"\n',
        "devices": DEVICE,
    }
    path = folder / "agent.toml"
    path.write_text(Template(template("agent.toml")).substitute(values), encoding="utf-8")
    return path


def faults_of(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read_config(path)
    assert caught.value.exit_code == 2
    return str(caught.value).splitlines()


def line_of(path: Path, start: str) -> int:
    lines = path.read_text(encoding="utf-8").splitlines()
    (found,) = [at for at, line in enumerate(lines, 1) if line.startswith(start)]
    return found


def replace(path: Path, *changes: tuple[str, str]) -> None:
    text = path.read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    path.write_text(text, encoding="utf-8")


def test_a_right_file_has_no_fault(tmp_path: Path) -> None:
    config = read_config(write_agent(tmp_path))
    assert [device.id for device in config.devices] == ["main-meter", "machine"]
    assert config.identity.signing_key == tmp_path / "keys" / "signing.key"


TYPOS: tuple[tuple[str, str], ...] = (
    ("gate_key =", "gate_kye ="),
    ("threshold = 1", 'threshold = "one"'),
    ("port = 1883", "port = 70000"),
    ("max_mb = 1024", "max_mb = 0.01"),
    ('interval = "1s"', 'interval = "1 second"'),
    ('address = "holding:0"', 'address = "4x00001"'),
    ("scale = 0.01", "scal = 0.01"),
    ('measurand = "power.active"', 'measurand = "power.activ"'),
    ('kind = "opcua"', 'kind = "opcu"'),
)


def test_all_faults_of_a_file_are_told_at_once_each_on_one_line(tmp_path: Path) -> None:
    path = write_agent(tmp_path)
    replace(path, *TYPOS)
    lines = faults_of(path)
    expected = {
        "identity.gate_key: ": line_of(path, "[identity]"),
        "identity.gate_kye: ": line_of(path, "gate_kye"),
        "policy.threshold: ": line_of(path, "threshold"),
        "broker.port: ": line_of(path, "port = 70000"),
        "spool.max_mb: ": line_of(path, "max_mb"),
        "device[1].interval: ": line_of(path, "interval"),
        "device[1].points[1].address: ": line_of(path, 'address = "4x'),
        "device[1].points[1].scal: ": line_of(path, "scal "),
        "device[1].points[2].measurand: ": line_of(path, 'measurand = "power.activ'),
        "device[2].kind: ": line_of(path, 'kind = "opcu"'),
    }
    for key, number in expected.items():
        found = [line for line in lines if line.startswith(f"{path}:{number}: {key}")]
        assert len(found) == 1, (key, number, lines)
    # An unknown kind leaves nothing to say about the rest of that device.
    assert len([line for line in lines if ": device[2]" not in line]) == len(expected) - 1


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("gate_key", "gate_kye"),
        ("threshold", "treshold"),
        ("keepalive_s", "keep_alive_s"),
        ("archive_mb", "archiv_mb"),
        ("max_registers", "max_register"),
        ("measurand", "mesurand"),
        ("interval", "intervall"),
        ("state_model", "statemodel"),
        ("on_reset", "on-reset"),
    ],
)
def test_a_misspelt_key_is_told_what_it_should_be(tmp_path: Path, right: str, wrong: str) -> None:
    path = write_agent(tmp_path)
    replace(path, ('protocol = "mqtt311"', 'protocol = "mqtt311"\nkeepalive_s = 20'))
    replace(path, (f"{right} =", f"{wrong} ="))
    assert any(f"{wrong}: " in line and f"'{right}'" in line for line in faults_of(path))


def keys_of(text: str) -> list[int]:
    """Return the lines (from 0) on which a key begins."""
    return [at for at, line in enumerate(text.splitlines()) if re.match(r"\w+ = ", line)]


def test_every_key_misspelt_by_one_letter_is_a_fault_on_its_own_line(tmp_path: Path) -> None:
    path = write_agent(tmp_path)
    text = path.read_text(encoding="utf-8")
    right = text.splitlines()
    assert len(keys_of(text)) > 40
    for at in keys_of(text):
        lines = right.copy()
        lines[at] = f"x{lines[at]}"
        path.write_text("\n".join(lines), encoding="utf-8")
        name = lines[at].split(" ")[0]
        found = [line for line in faults_of(path) if f"{name}: " in line]
        # A device without its kind has no model that could know its other keys.
        if name != "xkind":
            assert len(found) == 1
            assert found[0].startswith(f"{path}:{at + 1}: ")


STRANGE = (
    "0",
    "-1",
    "9223372036854775808",
    "1e999",
    "-0.0",
    "1.5",
    "nan",
    "inf",
    "true",
    '""',
    '"strange"',
    '"1e999999"',
    '"\\u0000"',
    '"\\u202e"',
    "[]",
    "[1]",
    '["a", {}]',
    "{}",
    "{ a = 1 }",
    "2026-01-01",
    "2026-01-01T00:00:00Z",
    "07:30:00",
    "9" * 5000,
    '"' + "9" * 5000 + '"',
)


@pytest.mark.parametrize("value", STRANGE, ids=lambda value: value[:20])
def test_a_strange_value_anywhere_is_a_plain_fault_or_harmless(tmp_path: Path, value: str) -> None:
    path = write_agent(tmp_path)
    text = path.read_text(encoding="utf-8")
    told: list[str] = []
    for at in keys_of(text):
        lines = text.splitlines()
        if lines[at].endswith("["):
            lines[at + 1] = lines[at + 2] = ""
        lines[at] = f"{lines[at].split(' = ')[0]} = {value}"
        path.write_text("\n".join(lines), encoding="utf-8")
        try:
            config = read_config(path)
            for device in config.devices:
                device.table()
        except ConfigError as fault:
            told.append(str(fault))
    assert len(told) > 15
    assert all(line.startswith(str(tmp_path)) for text in told for line in text.splitlines())


def test_every_table_replaced_by_a_strange_value_is_a_plain_fault(tmp_path: Path) -> None:
    path = write_agent(tmp_path)
    right = path.read_text(encoding="utf-8")
    for table in ("identity", "policy", "broker", "spool", "consumer", "device"):
        for value in ("1", '"x"', "[]", "[1]", "[[]]", "{}", "[{}]", "2026-01-01"):
            kept = re.sub(rf"(?ms)^\[\[?{table}[\].].*?(?=^\[(?!\[?{table}\b)|\Z)", "", right)
            path.write_text(f"{table} = {value}\n{kept}", encoding="utf-8")
            empty = {("broker", "{}"), ("broker", "[{}]"), ("spool", "{}"), ("device", "[]")}
            if (table, value) in empty:
                read_config(path)
            else:
                faults_of(path)


def test_a_device_that_is_no_list_of_tables_is_a_fault_not_nothing(tmp_path: Path) -> None:
    """Silence would mean an agent that reads nothing and says that all is well."""
    path = write_agent(tmp_path)
    text = path.read_text(encoding="utf-8")
    kept = text[: text.index("[[device]]")]
    path.write_text(kept + '[device]\nid = "m"\nkind = "modbus"\n', encoding="utf-8")
    faults_of(path)


def test_two_devices_of_one_id_are_a_fault(tmp_path: Path) -> None:
    path = write_agent(tmp_path)
    replace(path, ('id = "machine"', 'id = "main-meter"'))
    assert any("'main-meter' is used twice" in line for line in faults_of(path))


def test_two_points_of_one_id_are_a_fault(tmp_path: Path) -> None:
    path = write_agent(tmp_path)
    replace(path, ('id = "power"', 'id = "energy"'))
    assert any("'energy' is used twice" in line for line in faults_of(path))


@pytest.mark.parametrize(
    "text",
    [
        "a = 1\na = 2\n",
        "[broker]\nport = 1\nport = 2\n",
        "[broker]\n[broker]\n",
        "a = {x = 1, x = 2}\n",
        "a.b = 1\n[a]\nb = 2\n",
        "a = \n",
        "= 1\n",
        "[broker\n",
        'a = "unclosed\n',
        "a = 'tab\0'\n",
    ],
)
def test_a_key_twice_and_broken_toml_are_one_plain_fault(tmp_path: Path, text: str) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(text, encoding="utf-8")
    for read in (read_config, read_aggregator, read_toml):
        with pytest.raises(ConfigError) as caught:
            read(path)
        (line,) = str(caught.value).splitlines()
        assert re.match(rf"{re.escape(str(path))}(:[1-9]: |: .*line [1-9])", line)


@pytest.mark.parametrize("name", ["missing.toml", "folder", "binary.toml", "missing/agent.toml"])
def test_a_file_that_cannot_be_read_is_one_plain_fault(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    for read in (read_config, read_aggregator, read_toml):
        with pytest.raises(ConfigError) as caught:
            read(tmp_path / name)
        assert str(caught.value).startswith(f"{tmp_path / name}: ")


def test_faults_of_a_brains_card_are_told_with_its_own_file(tmp_path: Path) -> None:
    path = write_agent(tmp_path)
    replace(tmp_path / "brain.card", ("receipt_key = ", "recipt_key = "))
    lines = faults_of(path)
    assert len(lines) == 2
    assert all(line.startswith(str(tmp_path / "brain.card")) for line in lines)


def write_aggregator(folder: Path) -> Path:
    values = {
        "name": '"brain"',
        "broker_host": "127.0.0.1",
        "broker_port": "1883",
        "protocol": "mqtt5",
        "api_port": "0",
    }
    (folder / "factories").mkdir()
    path = folder / "aggregator.toml"
    path.write_text(Template(template("aggregator.toml")).substitute(values), encoding="utf-8")
    return path


@pytest.mark.parametrize("value", STRANGE, ids=lambda value: value[:20])
def test_a_strange_value_in_the_brains_file_is_a_plain_fault_or_harmless(
    tmp_path: Path, value: str
) -> None:
    path = write_aggregator(tmp_path)
    right = path.read_text(encoding="utf-8")
    assert read_aggregator(path).factories() == {}
    told: list[str] = []
    changed = []
    for at in keys_of(right):
        lines = right.splitlines()
        lines[at] = f"{lines[at].split(' = ')[0]} = {value}"
        changed.append("\n".join(lines))
    for table in ("brain", "broker", "ledger", "store", "carbon", "api"):
        kept = re.sub(rf"(?ms)^\[{table}\].*?(?=^\[|\Z)", "", right)
        changed.append(f"{table} = {value}\n{kept}")
    for text in changed:
        path.write_text(text, encoding="utf-8")
        try:
            read_aggregator(path).factories()
        except ConfigError as fault:
            told.append(str(fault))
    assert len(told) > 8
    assert all(line.startswith(str(tmp_path)) for text in told for line in text.splitlines())


# Lines of keys.

TEXT = """\
top = 1

# [not.a.table]
[plain]
key = 1 # not = this
"quoted" = 2
dotted.key = 3
inline = { a = 1, b = 2 }

[[list]]
name = "one"
[list.inner]
deep = 1
[[list.items]]
x = 1
[[list.items]]
x = 2

[[list]]
name = "two"
[[list.items]]
x = 3
"""


def test_keys_are_found_on_their_lines() -> None:
    lines = key_lines(TEXT)
    expected = {
        ("top",): "top = 1",
        ("plain",): "[plain]",
        ("plain", "key"): "key = 1",
        ("plain", "quoted"): '"quoted"',
        ("plain", "dotted", "key"): "dotted.key",
        ("plain", "inline"): "inline",
        ("list", 0, "name"): 'name = "one"',
        ("list", 0, "inner", "deep"): "deep",
        ("list", 0, "items", 0, "x"): "x = 1",
        ("list", 0, "items", 1, "x"): "x = 2",
        ("list", 1, "name"): 'name = "two"',
        ("list", 1, "items", 0, "x"): "x = 3",
    }
    text = TEXT.splitlines()
    for keys, start in expected.items():
        assert text[lines[keys] - 1].startswith(start)
    assert ("not", "a", "table") not in lines


def test_lists_over_several_lines_do_not_hide_the_keys_after_them() -> None:
    text = "[a]\nrows = [\n    [1, 2],\n    [3, 4],\n]\nafter = 1\n"
    assert key_lines(text)["a", "after"] == 6


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=200))
def test_any_text_has_some_lines_of_keys(text: str) -> None:
    assert all(number >= 1 for number in key_lines(text).values())


# Durations.


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("0s", 0),
        ("500ms", 500_000_000),
        ("5s", 5_000_000_000),
        ("15m", 900_000_000_000),
        ("1h", 3_600_000_000_000),
        ("7d", 604_800_000_000_000),
    ],
)
def test_a_duration_is_a_number_and_a_unit(text: str, ns: int) -> None:
    assert parse_duration(text) == ns
    # A validator may be asked twice about one value.
    assert parse_duration(parse_duration(text)) == ns


@pytest.mark.parametrize(
    "value",
    [5, 0, 1.5, True, "5", "s", "", "-5s", "1.5s", "5 s", "5S", "5sec", "s5", "٥s", None, []],
)
def test_what_has_no_unit_is_no_duration(value: object) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(value)


class Inner(Strict):
    length: Duration = Field(default=1, ge=1)


class Outer(Strict):
    inner: Inner = Inner()
    number: int = 0


def test_a_model_that_was_read_does_not_change(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text('number = 3\n[inner]\nlength = "2s"\n')
    outer = load_settings(path, Outer)
    assert (outer.number, outer.inner.length) == (3, 2_000_000_000)
    with pytest.raises(ValueError, match="frozen"):
        outer.number = 4


# The command line.


def run(*arguments: str, chinese: bool = False) -> subprocess.CompletedProcess[str]:
    language = "zh_CN.UTF-8" if chinese else "en"
    return subprocess.run(
        [sys.executable, "-m", "millgate", *arguments],
        cwd=ROOT,
        env={**os.environ, "MILLGATE_LANG": language, "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("chinese", [False, True], ids=["English", "Chinese"])
def test_typos_end_the_command_with_code_2_and_one_line_each(
    tmp_path: Path, *, chinese: bool
) -> None:
    path = write_agent(tmp_path)
    replace(path, *TYPOS)
    done = run("agent", "check", str(path), chinese=chinese)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) >= len(TYPOS)
    assert all(line.startswith(f"{path}:") for line in lines)
    assert any("gate_kye" in line and "'gate_key'" in line for line in lines)
    assert any(("unknown key" in line) != chinese for line in lines)


def test_the_command_without_a_file_ends_with_code_2_and_one_line(tmp_path: Path) -> None:
    done = run("agent", "check", str(tmp_path / "nothing.toml"))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_right_file_without_a_policy_is_right_and_says_that_nothing_leaves_yet(
    tmp_path: Path,
) -> None:
    done = run("agent", "check", str(write_agent(tmp_path)))
    assert done.returncode == 0, done.stderr
    assert "nothing leaves; next: millgate policy new" in done.stdout


def test_a_damaged_policy_ends_the_check_with_one_line_that_nothing_leaves(tmp_path: Path) -> None:
    path = write_agent(tmp_path)
    (tmp_path / "policy.signed").write_bytes(b"not a policy")
    done = run("agent", "check", str(path))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    (line,) = done.stderr.splitlines()
    assert "nothing leaves" in line


def test_a_key_open_to_others_ends_the_command_with_one_line(tmp_path: Path) -> None:
    path = write_agent(tmp_path)
    (tmp_path / "keys" / "gate.key").chmod(0o644)
    done = run("agent", "check", str(path))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "chmod 600" in line
