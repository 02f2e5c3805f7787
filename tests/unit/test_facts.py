"""Facts that people enter: refused when faulty, one value at a time, and plain to use."""

from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from aggregator import facts as facts_module
from aggregator.cli import app
from aggregator.facts import (
    COLUMNS,
    KINDS,
    Fact,
    FactFile,
    SiteFacts,
    decoded,
    merged,
    parse_csv,
    to_csv,
)
from protocols.errors import ConfigError, MillgateError
from security.admin_log import read_log
from security.cards import write_card
from tests.small_factory import Keys

HEAD = ",".join(COLUMNS) + "\n"
VALUE = "mill,main,,value_added,12.5,2026-01-01,2027-01-01,annual return,2026-02-01\n"


def test_a_fact_is_read_with_its_source_and_days() -> None:
    (fact,) = parse_csv(HEAD + VALUE, "facts.csv")
    assert fact == Fact(
        "mill",
        "main",
        "",
        "value_added",
        Decimal("12.5"),
        date(2026, 1, 1),
        date(2027, 1, 1),
        "annual return",
        date(2026, 2, 1),
    )


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("mill,main,,value_aded,1,2026-01-01,2027-01-01,x,2026-01-01", "no fact 'value_aded'"),
        ("mill,main,,value_added,much,2026-01-01,2027-01-01,x,2026-01-01", "'much' is no number"),
        ("mill,main,,value_added,NaN,2026-01-01,2027-01-01,x,2026-01-01", "'NaN' is no number"),
        ("mill,main,,value_added,1,2026-13-01,2027-01-01,x,2026-01-01", "'2026-13-01' is no day"),
        ("mill,main,,value_added,1,0001-01-01,2027-01-01,x,2026-01-01", "'0001-01-01' is no day"),
        ("mill,main,,value_added,1,2026-01-01,,x,2026-01-01", "end is missing"),
        ("mill,main,,value_added,1,2026-01-01,2026-01-01,x,2026-01-01", "not after its beginning"),
        ("mill,main,,value_added,1,2026-01-01,2027-01-01, ,2026-01-01", "has a source"),
        ("mill,main,p,land_area,1,2026-01-01,,x,2026-01-01", "is of the whole site"),
        ("mill,main,,ideal_cycle_time,1,2026-01-01,,x,2026-01-01", "is of one equipment"),
        (",main,,land_area,1,2026-01-01,,x,2026-01-01", "whose fact"),
        ("mill,main,,green_power_share,30,2026-01-01,2027-01-01,x,2026-01-01", "30 is no share"),
        ("mill,main,,headcount,-1,2026-01-01,,x,2026-01-01", "employees cannot be -1"),
        ("mill,main,p,ideal_cycle_time,0,2026-01-01,,x,2026-01-01", "per unit cannot be 0"),
    ],
)
def test_a_faulty_line_is_refused_with_where_and_remedy(line: str, what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_csv(HEAD + VALUE + line + "\n", "facts.csv")
    (fault,) = caught.value.faults
    assert what in fault.what
    assert fault.where == "facts.csv:3"
    assert fault.remedy


def test_every_fault_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_csv(HEAD + "a,,,x,1,2026-01-01,,s,2026-01-01\n" * 3, "f")
    assert [fault.where for fault in caught.value.faults] == ["f:2", "f:3", "f:4"]
    with pytest.raises(ConfigError, match="columns are missing: equipment"):
        parse_csv("enterprise,site\n", "f")


def test_two_values_for_one_day_are_refused() -> None:
    other = VALUE.replace("2026-01-01,2027", "2026-06-01,2028", 1)
    with pytest.raises(ConfigError, match="two values for 2026-06-01"):
        parse_csv(HEAD + VALUE + other, "f")
    with pytest.raises(ConfigError, match="two values"):
        parse_csv(HEAD + VALUE + VALUE, "f")
    later = VALUE.replace("2026-01-01,2027-01-01", "2027-01-01,2028-01-01")
    assert len(parse_csv(HEAD + VALUE + later, "f")) == 2


def test_a_file_never_gets_more_facts_than_it_is_read_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts_module, "_MOST", 1)
    file = FactFile(tmp_path / "facts.csv")
    first, second = (
        parse_csv(HEAD + VALUE.replace("value_added", name), "f") for name in ("revenue", "profit")
    )
    file.change(lambda _: first)
    with pytest.raises(ConfigError, match="too many facts"):
        file.change(lambda before: [*before, *second])
    assert file.read() == first


def test_of_facts_that_hold_until_replaced_the_newer_holds() -> None:
    lines = "mill,main,,land_area,{},{},,register,2026-01-01\n"
    facts = parse_csv(HEAD + lines.format(10, "2020-01-01") + lines.format(12, "2025-01-01"), "f")
    site = SiteFacts(facts)
    assert site.on("land_area", date(2019, 12, 31)) is None
    assert site.on("land_area", date(2024, 12, 31)) == 10
    assert site.on("land_area", date(2025, 1, 1)) == 12
    assert site.on("headcount", date(2025, 1, 1)) is None


def test_chinese_columns_semicolons_and_gbk_of_a_spreadsheet_are_read() -> None:
    text = (
        "企业;厂区;设备;事实项;数值;首日;截止日;出处;填写日\n"
        "mill;;;land_area;66.7;2026/1/1;;不动产权证;2026/3/5\n"
    )
    (fact,) = parse_csv(decoded(text.encode("gb18030")), "f")
    assert (fact.site, fact.value, fact.source) == ("main", Decimal("66.7"), "不动产权证")
    assert fact.valid_from == date(2026, 1, 1)


facts = st.builds(
    Fact,
    st.sampled_from(["mill", "厂"]),
    st.just("main"),
    st.just(""),
    st.just("headcount"),
    st.decimals(0, 10**6, places=3),
    st.dates(date(1970, 1, 1), date(2200, 1, 1)),
    st.none(),
    st.text(min_size=1, max_size=50).map(lambda t: t.strip() or "x").filter(str.isprintable),
    st.dates(date(1970, 1, 1), date(2200, 1, 1)),
)


@settings(deadline=None, max_examples=100)
@given(st.lists(facts, max_size=5, unique_by=lambda fact: (fact.place, fact.valid_from)))
def test_facts_written_are_read_again(entered: list[Fact]) -> None:
    text = to_csv(entered)
    found = parse_csv(text, "f")
    assert sorted(map(repr, found)) == sorted(map(repr, entered))
    assert to_csv(found) == text


def test_a_new_fact_of_the_same_day_replaces_the_old_one(tmp_path: Path) -> None:
    file = FactFile(tmp_path / "data" / "facts.csv")
    assert file.read() == []
    old = parse_csv(HEAD + VALUE, "f")
    file.write(merged(file.read(), old))
    new = parse_csv(HEAD + VALUE.replace("12.5", "13"), "f")
    file.write(merged(file.read(), new))
    assert [fact.value for fact in file.read()] == [13]


# As a person uses it.


@pytest.fixture
def brain(tmp_path: Path) -> Path:
    folder = tmp_path / "brain"
    assert CliRunner().invoke(app, ["init", str(folder)]).exit_code == 0
    write_card(folder / "factories" / "mill.card", Keys().agent_card)
    return folder / "aggregator.toml"


def run(brain: Path, command: str, *arguments: str) -> str:
    done = CliRunner().invoke(app, ["facts", command, str(brain), *arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


PERIOD = ("--from", "2026-01-01", "--until", "2027-01-01", "--source", "annual return")


def test_a_fact_is_entered_listed_and_removed(brain: Path) -> None:
    assert "value_added = 1200 万元" in run(brain, "set", "mill", "value_added", "1200", *PERIOD)
    listed = run(brain, "list")
    assert listed.splitlines()[0] == ",".join(COLUMNS)
    assert listed.splitlines()[1].startswith("mill,main,,value_added,1200,2026-01-01,2027-01-01")
    assert '"source": "annual return"' in run(brain, "list", "--json")
    run(brain, "remove", "mill", "value_added", "--from", "2026-01-01")
    assert len(run(brain, "list").splitlines()) == 1
    with pytest.raises(MillgateError, match="no such fact"):
        run(brain, "remove", "mill", "value_added", "--from", "2026-01-01")


def test_what_commands_change_is_in_the_log_of_administrators_actions(
    brain: Path, tmp_path: Path
) -> None:
    table = tmp_path / "facts.csv"
    table.write_text(HEAD + VALUE, "utf-8")
    run(brain, "import", str(table))
    run(brain, "set", "mill", "value_added", "1200", *PERIOD)
    run(brain, "set", "mill", "value_added", "1300", *PERIOD)
    run(brain, "remove", "mill", "value_added", "--from", "2026-01-01")
    found = read_log(brain.parent / "data" / "admin.log")
    assert [(one.action, one.facts.get("value")) for one in found][-3:] == [
        ("set-fact", "1200"),
        ("set-fact", "1300"),
        ("remove-fact", None),
    ]
    assert found[-1].facts["was"] == found[-2].facts["value"]
    assert "token" not in found[-1].facts


def test_a_mistyped_firm_is_a_plain_fault_that_suggests_the_right_one(brain: Path) -> None:
    with pytest.raises(MillgateError) as caught:
        run(brain, "set", "mil", "value_added", "1", *PERIOD)
    assert "did you mean 'mill.main'?" in caught.value.remedy


def test_a_list_can_be_imported_again_and_a_faulty_one_changes_nothing(
    brain: Path, tmp_path: Path
) -> None:
    table = tmp_path / "facts.csv"
    table.write_text(HEAD + VALUE, "utf-8")
    assert "1 fact" in run(brain, "import", str(table))
    listed = run(brain, "list")
    table.write_text(listed, "utf-8")
    run(brain, "import", str(table))
    assert run(brain, "list") == listed
    table.write_text(HEAD + VALUE.replace("12.5", "99") + VALUE.replace("12.5", "x"), "utf-8")
    with pytest.raises(ConfigError):
        run(brain, "import", str(table))
    assert run(brain, "list") == listed


def test_every_kind_is_listed_with_its_unit() -> None:
    done = CliRunner().invoke(app, ["facts", "kinds"])
    assert [line.split()[0] for line in done.output.splitlines()] == list(KINDS)
