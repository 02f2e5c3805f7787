"""Evidence: what a bundle shows is checked offline, and every change of it is found."""

import base64
import hashlib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import millgate
from agent.attest import Attester
from aggregator.evidence import export
from aggregator.evidence_cli import app
from protocols import strict_cbor
from protocols.batch import Block
from security import transparency
from security.at_rest import SEED_BYTES
from security.cards import AgentCard, card_from_text, card_text, write_card
from security.evidence import NotABundle, reading
from security.evidence_check import Grade, Report, check
from security.statements import (
    ATTEST_S,
    Attestation,
    ChainEnd,
    Loss,
    sign_attestation,
    sign_statement,
)
from tests.small_factory import (
    ENERGY,
    NOW,
    SHORT_S,
    Agent,
    Brain,
    Forger,
    Keys,
    block,
    signed_policy,
)

KEYS = Keys()
POLICY = signed_policy(KEYS)
SPAN = (NOW - 10, NOW + 20 * ATTEST_S)
AGENTS = {KEYS.address: KEYS.agent_card}

Change = Callable[[dict[str, bytes]], None]


def energy(slot: int) -> Block:
    return block(NOW // SHORT_S + slot, [ENERGY], [5 * slot])


@pytest.fixture
def brain(tmp_path: Path) -> Iterator[Brain]:
    opened = Brain(tmp_path, KEYS)
    yield opened
    opened.close()


def written(brain: Brain, path: Path, span: tuple[int, int] = SPAN) -> Path:
    export(
        brain.ledger,
        path,
        span,
        KEYS.brain_card,
        brain.receipt,
        brain.factories,
        brain.now,
    )
    return path


def checked(path: Path, agents: dict[Any, AgentCard] | None = None) -> Report:
    with reading(path) as bundle:
        return check(bundle, KEYS.brain_card, agents or AGENTS)


def said(report: Report, grade: Grade) -> list[str]:
    return [one.text for one in report.findings if one.grade is grade]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Brain]:
    """A brain with hours of an agent's messages and attestations; tests only read it."""
    folder = tmp_path_factory.mktemp("filled")
    brain = fill(folder, Brain(folder, KEYS))
    yield brain
    brain.close()


def fill(folder: Path, brain: Brain) -> Brain:
    agent = Agent(folder / "agent", KEYS, POLICY)
    agent.start()
    clock = [NOW]
    attester = Attester(
        agent.spool,
        KEYS.address,
        (KEYS.signing, KEYS.attestation),
        (1, POLICY.hash),
        lambda: clock[0] * 10**9,
    )
    for hour in range(3):
        for slot in range(4):
            agent.release(energy(10 * hour + slot))
            for _, answer in brain.take(KEYS, *agent.waiting()).answers:
                agent.settle(answer)
        brain.take(KEYS, *attester.waiting())
        agent.spool.attested(b"", hour + 1, [])
        clock[0] += ATTEST_S
        brain.clock += ATTEST_S
    return brain


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, filled: Brain) -> Path:
    return written(filled, tmp_path_factory.mktemp("bundle") / "bundle.zip")


def test_a_true_bundle_holds_and_says_who_sent_what_under_which_policy(bundle: Path) -> None:
    report = checked(bundle)
    assert report.holds
    (chain,) = [text for text in said(report, Grade.PROVEN) if "12 message(s)" in text]
    assert "sequences 0-11" in chain
    assert "policy version 1 (its release sheet is signed by the officers)" in chain
    assert any("signed a receipt for all of them" in t for t in said(report, Grade.PROVEN))
    assert any("3 attestation(s)" in text for text in said(report, Grade.PROVEN))


def test_a_part_of_the_time_is_a_bundle_of_its_own(tmp_path: Path, filled: Brain) -> None:
    path = written(filled, tmp_path / "hour.zip", (NOW + ATTEST_S, NOW + 2 * ATTEST_S))
    report = checked(path)
    assert report.holds
    assert any("sequences 4-7" in text for text in said(report, Grade.PROVEN))


def changed(source: Path, change: Change) -> Path:
    """Write a bundle anew with its files changed."""
    with zipfile.ZipFile(source) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    change(files)
    target = source.with_name("changed.zip")
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return target


def named(files: dict[str, bytes], folder: str, at: int = 0) -> str:
    return sorted(name for name in files if name.startswith(f"{folder}/"))[at]


def flip(folder: str, place: int) -> Change:
    def change(files: dict[str, bytes]) -> None:
        name = named(files, folder)
        data = bytearray(files[name])
        data[place] ^= 1
        files[name] = bytes(data)

    return change


def leaves_of(files: dict[str, bytes]) -> list[list[Any]]:
    data, at, found = files["leaves.bin"], 0, []
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        found.append(strict_cbor.decode(data[at + 4 : at + 4 + size], max_bytes=1 << 16))
        at += 4 + size
    return found


def put_leaves(files: dict[str, bytes], leaves: list[list[Any]]) -> None:
    lines = [strict_cbor.encode(leaf) for leaf in leaves]
    files["leaves.bin"] = b"".join(len(one).to_bytes(4, "big") + one for one in lines)


def leaf(at: int, part: int, value: Any) -> Change:
    def change(files: dict[str, bytes]) -> None:
        leaves = leaves_of(files)
        leaves[at][part] = value
        put_leaves(files, leaves)

    return change


def other_root(files: dict[str, bytes]) -> None:
    files["tree-head.cose"] = files["tree-head.cose"][:-1] + b"?"


def swapped(files: dict[str, bytes]) -> None:
    """Two messages under each other's names."""
    first, second = named(files, "messages"), named(files, "messages", 1)
    files[first], files[second] = files[second], files[first]


FORGED: dict[str, Change] = {
    "a bit of a message": flip("messages", 300),
    "the last bit of a message": flip("messages", -1),
    "a bit of a receipt": flip("receipts", 60),
    "a bit of a release sheet": flip("sheets", 300),
    "the tree head": other_root,
    "messages swapped": swapped,
    "another digest in the log": leaf(2, 8, b"x" * 32),
    "another place in the log": leaf(2, 0, 1_000_000),
    "another sequence": leaf(2, 6, 9),
    "another stream": leaf(2, 5, 9),
    "another kind": leaf(2, 1, 3),
    "an unknown kind": leaf(2, 1, 9),
    "another agent": leaf(2, 3, bytes(16)),
    "no proof": leaf(2, 9, []),
}


@pytest.mark.parametrize("change", FORGED.values(), ids=FORGED.keys())
def test_what_was_changed_is_called_forged(bundle: Path, change: Change) -> None:
    def both(files: dict[str, bytes]) -> None:
        change(files)
        ordered = sorted(leaves_of(files), key=lambda one: int(one[0]))
        put_leaves(files, ordered)

    report = checked(changed(bundle, both))
    assert said(report, Grade.FORGED)
    assert not report.holds


def test_a_message_taken_out_of_the_bundle_is_missing(bundle: Path) -> None:
    def change(files: dict[str, bytes]) -> None:
        leaves = leaves_of(files)
        gone = [one for one in leaves if one[1] == 0 and one[6] in {5, 6}]
        for one in gone:
            del files[f"messages/{one[8].hex()}.cose"]
        put_leaves(files, [one for one in leaves if one not in gone])

    report = checked(changed(bundle, change))
    assert any("sequences 5-6" in text for text in said(report, Grade.MISSING))


def test_a_list_of_entries_taken_out_is_missing_whole_or_in_part(bundle: Path) -> None:
    def whole(files: dict[str, bytes]) -> None:
        del files["leaves.bin"]

    def tail(files: dict[str, bytes]) -> None:
        put_leaves(files, leaves_of(files)[:-1])

    for change, count in ((whole, 16), (tail, 1)):
        report = checked(changed(bundle, change))
        assert not report.holds
        (line,) = [text for text in said(report, Grade.MISSING) if "log entries" in text]
        assert f"of {count} message(s)" in line


def test_a_release_sheet_taken_out_is_missing(bundle: Path) -> None:
    def change(files: dict[str, bytes]) -> None:
        del files[named(files, "sheets")]

    missing = said(checked(changed(bundle, change)), Grade.MISSING)
    assert missing
    assert all("release sheet" in line and "policy version 1" in line for line in missing)


def test_bytes_taken_out_of_the_bundle_are_told_with_their_place(bundle: Path) -> None:
    def change(files: dict[str, bytes]) -> None:
        gone = next(one for one in leaves_of(files) if one[1] == 0 and one[6] == 5)
        del files[f"messages/{gone[8].hex()}.cose"]

    (line,) = said(checked(changed(bundle, change)), Grade.NOTE)
    assert "sequence 5" in line
    assert "taken out of this file" in line


def test_a_tail_taken_out_of_the_bundle_is_missing_by_the_attestations(bundle: Path) -> None:
    def change(files: dict[str, bytes]) -> None:
        leaves = leaves_of(files)
        put_leaves(files, [one for one in leaves if not (one[1] == 0 and one[6] >= 10)])

    report = checked(changed(bundle, change))
    assert any("sequences 10-11 are missing" in text for text in said(report, Grade.MISSING))


def attested_in(forger: Forger, number: int, epoch: int, *, silent: bool = False) -> bytes:
    """Return an attestation of how far the fast stream has come, or that names no stream."""
    count, last = forger.ends.get((epoch, forger.short), (0, bytes(32)))
    ends = () if silent else (ChainEnd(forger.short, count, last),)
    at_s = NOW + number * ATTEST_S
    seen = epoch, number, at_s, 1, POLICY.hash, (0, bytes(32)), ends
    return sign_attestation(Attestation(KEYS.address, *seen), KEYS.signing, KEYS.attestation)


def without_batches_of(epoch: int) -> Change:
    def change(files: dict[str, bytes]) -> None:
        gone = [one for one in leaves_of(files) if one[1] == 0 and one[4] == epoch]
        assert len(gone) >= 2
        for one in gone:
            del files[f"messages/{one[8].hex()}.cose"]
        put_leaves(files, [one for one in leaves_of(files) if one not in gone])

    return change


def test_a_whole_epoch_taken_out_of_the_bundle_is_missing_by_the_attestations(
    tmp_path: Path, brain: Brain
) -> None:
    forger = Forger(KEYS, POLICY)
    for epoch in (1, 2):
        sheet, batch = forger.sheet_message(epoch=epoch), forger.batch(energy(epoch), epoch=epoch)
        brain.take(KEYS, sheet, batch)
        brain.clock += ATTEST_S
        brain.take(KEYS, attested_in(forger, epoch, epoch))
    path = written(brain, tmp_path / "epochs.zip")
    assert checked(path).holds
    (line,) = said(checked(changed(path, without_batches_of(2))), Grade.MISSING)
    assert "epoch 2" in line
    assert "sequences 0-0 are missing" in line


def test_a_stream_that_began_later_and_was_taken_out_is_missing_by_the_attestations(
    tmp_path: Path, brain: Brain
) -> None:
    forger = Forger(KEYS, POLICY)
    brain.take(KEYS, forger.sheet_message())
    for number in (1, 2, 3):
        brain.take(KEYS, forger.batch(energy(number)))
        brain.clock += ATTEST_S
        brain.take(KEYS, attested_in(forger, number, 1, silent=number == 1))
    path = written(brain, tmp_path / "stream.zip")
    assert checked(path).holds
    (line,) = said(checked(changed(path, without_batches_of(1))), Grade.MISSING)
    assert "had 3 messages; sequences 2-2 are missing" in line


def test_the_beginning_of_a_chain_taken_out_is_missing_by_the_attestations(bundle: Path) -> None:
    """The second attestation, within the span, had 8 messages."""

    def change(files: dict[str, bytes]) -> None:
        gone = [one for one in leaves_of(files) if one[1] == 0 and one[6] in range(10)]
        gone = [one for one in gone if one[5] == gone[-1][5]]
        for one in gone:
            files.pop(f"messages/{one[8].hex()}.cose")
        put_leaves(files, [one for one in leaves_of(files) if one not in gone])

    (line,) = said(checked(changed(bundle, change)), Grade.MISSING)
    assert "sequences 8-9" in line


def test_what_came_between_an_attestation_and_the_span_is_not_missing(
    tmp_path: Path, brain: Brain
) -> None:
    forger = Forger(KEYS, POLICY)
    brain.take(KEYS, forger.sheet_message(), forger.batch(energy(0)))
    brain.clock += ATTEST_S
    brain.take(KEYS, attested_in(forger, 1, 1))
    brain.clock += 100
    brain.take(KEYS, forger.batch(energy(1)))
    brain.clock += ATTEST_S - 100
    brain.take(KEYS, attested_in(forger, 2, 1))
    path = written(brain, tmp_path / "later.zip", (NOW + ATTEST_S + 200, SPAN[1]))
    assert checked(path).holds


def test_a_bundle_without_attestations_says_that_something_may_be_left_out(bundle: Path) -> None:
    def change(files: dict[str, bytes]) -> None:
        for name in [one for one in files if one.startswith(("messages/", "receipts/"))]:
            del files[name]
        put_leaves(files, [])

    (line,) = said(checked(changed(bundle, change)), Grade.NOTE)
    assert "nothing shows that none of its messages was left out" in line


@pytest.mark.parametrize("name", ["disclosed/zz.bin", "agents/x.card", "more.txt", "messages/"])
def test_a_file_that_belongs_in_no_bundle_makes_it_none(bundle: Path, name: str) -> None:
    def change(files: dict[str, bytes]) -> None:
        files[name] = b"x"

    with pytest.raises(NotABundle, match="belongs in no bundle"):
        checked(changed(bundle, change))


def test_a_bundle_whose_compressed_bytes_are_damaged_is_none(tmp_path: Path, bundle: Path) -> None:
    path = tmp_path / "deflated.zip"
    with zipfile.ZipFile(bundle) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as to:
        for name in source.namelist():
            to.writestr(name, source.read(name))
        place = to.getinfo("leaves.bin").header_offset + 30 + len("leaves.bin")
    data = bytearray(path.read_bytes())
    data[place : place + 2] = b"\xff\xff"
    path.write_bytes(data)
    with pytest.raises(NotABundle):
        checked(path)


def test_a_time_beyond_any_calendar_is_no_reason_to_stop(bundle: Path) -> None:
    assert said(checked(changed(bundle, leaf(-1, 7, 1 << 45))), Grade.PROVEN)
    assert said(checked(changed(bundle, leaf(0, 7, 1 << 45))), Grade.PROVEN)


def test_an_attestation_taken_out_is_missing(bundle: Path) -> None:
    def change(files: dict[str, bytes]) -> None:
        put_leaves(files, [one for one in leaves_of(files) if not (one[1] == 3 and one[6] == 2)])

    report = checked(changed(bundle, change))
    assert any("attestations 2-2" in text for text in said(report, Grade.MISSING))


def test_without_receipts_the_delivery_is_not_shown_by_them(bundle: Path) -> None:
    def change(files: dict[str, bytes]) -> None:
        for name in [name for name in files if name.startswith("receipts/")]:
            del files[name]

    report = checked(changed(bundle, change))
    assert any("no receipt" in text for text in said(report, Grade.MISSING))


def test_a_rewritten_log_of_the_brain_shows_in_its_old_receipts(
    tmp_path: Path, brain: Brain
) -> None:
    """The brain itself drops a message and builds its log anew; its own receipts contradict it."""
    filled = fill(tmp_path, brain)
    db = filled.ledger._db
    rows = [row for row in db.execute("SELECT * FROM log ORDER BY place") if row[5] != 6]
    db.execute("DELETE FROM log")
    db.execute("DELETE FROM node")
    record = filled.ledger.record
    for place, row in enumerate(rows):
        db.execute("INSERT INTO log VALUES (?,?,?,?,?,?,?,?)", (place, *row[1:]))
        transparency.append(place, row[7], record.node, record._put)
    report = checked(written(filled, tmp_path / "rewritten.zip"))
    assert any("not part of the signed log" in text for text in said(report, Grade.FORGED))
    assert any("sequences 6-6" in text for text in said(report, Grade.MISSING))


def test_equivocation_is_shown_with_both_messages(tmp_path: Path, brain: Brain) -> None:
    forger = Forger(KEYS, POLICY)
    brain.take(KEYS, forger.sheet_message(), forger.batch(energy(0)), forger.batch(energy(1)))
    brain.take(KEYS, forger.batch(energy(5), sequence=1, advance=False))
    report = checked(written(brain, tmp_path / "two.zip"))
    assert any("signed two different messages" in text for text in said(report, Grade.FORGED))


def test_a_declared_loss_is_no_omission(tmp_path: Path, brain: Brain) -> None:
    forger = Forger(KEYS, POLICY)
    brain.take(KEYS, forger.sheet_message(), forger.batch(energy(0)))
    last = b"l" * 32
    loss = sign_statement(Loss(KEYS.address, NOW, 1, forger.short, 1, 4, last, 2), KEYS.signing)
    assert brain.take(KEYS, loss).counts == {"declared_lost": 1}
    brain.take(KEYS, forger.batch(energy(9), sequence=5, previous=last))
    report = checked(written(brain, tmp_path / "loss.zip"))
    assert said(report, Grade.MISSING) == []
    assert any("itself declared sequences 1-4" in text for text in said(report, Grade.NOTE))


def test_refused_messages_are_shown_as_refused(tmp_path: Path, brain: Brain) -> None:
    forger = Forger(KEYS, POLICY)
    brain.take(KEYS, forger.sheet_message(), forger.batch(block(NOW // SHORT_S, [ENERGY], [7])))
    report = checked(written(brain, tmp_path / "refused.zip"))
    assert report.holds
    assert any("1 refused" in text for text in said(report, Grade.PROVEN))


def test_a_bundle_is_the_same_bytes_each_time(tmp_path: Path, filled: Brain) -> None:
    one, two = (written(filled, tmp_path / f"{at}.zip").read_bytes() for at in "ab")
    assert one == two


@pytest.mark.parametrize("data", [b"", b"PK", b"not a zip" * 100])
def test_another_file_is_no_bundle(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(data)
    with pytest.raises(NotABundle), reading(path):
        pass


def test_a_file_that_unpacks_to_too_much_is_no_bundle(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("security.evidence._MOST_FILE", 100)
    with pytest.raises(NotABundle):
        checked(bundle)


def test_no_secret_is_in_a_bundle(bundle: Path, filled: Brain) -> None:
    with zipfile.ZipFile(bundle) as archive:
        everything = b"".join(archive.read(name) for name in archive.namelist())
    for padded in ("mill agent", "mill officer 0", "brain", "mill audit"):
        for word in ("sign", "open", "attest"):
            seed = hashlib.sha256(f"{word} {padded}".encode()).digest()
            assert len(seed) == SEED_BYTES
            assert seed not in everything


# The commands.


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


def test_verify_prints_fingerprints_until_cards_are_given(tmp_path: Path, bundle: Path) -> None:
    done = run("verify", str(bundle))
    assert done.exit_code == 0, done.output
    assert "nothing is missing, nothing is forged" in done.output
    write_card(tmp_path / "brain.card", KEYS.brain_card)
    write_card(tmp_path / "mill.card", KEYS.agent_card)
    shown = run("fingerprint", str(tmp_path / "brain.card"), str(tmp_path / "mill.card"))
    prints = [line.split()[0] for line in shown.output.splitlines()]
    assert len(set(prints)) == 2
    assert all(f"compare: {one}" in done.output for one in prints)
    cards = [
        "--brain-card",
        str(tmp_path / "brain.card"),
        "--agent-card",
        str(tmp_path / "mill.card"),
    ]
    done = run("verify", str(bundle), *cards)
    assert done.exit_code == 0
    assert "compare" not in done.output


def test_a_fingerprint_covers_officers_and_the_attestation_key_too(tmp_path: Path) -> None:
    card, other = KEYS.agent_card, Keys("another mill").agent_card
    prints = set()
    for at, one in enumerate(
        (
            card,
            card.model_copy(update={"officers": other.officers}),
            card.model_copy(update={"attestation_key": other.attestation_key}),
        )
    ):
        write_card(tmp_path / f"{at}.card", one)
        prints.add(run("fingerprint", str(tmp_path / f"{at}.card")).output.split()[0])
    assert len(prints) == 3


def test_a_bundle_with_its_own_false_cards_does_not_fool_who_holds_the_true_one(
    tmp_path: Path, bundle: Path
) -> None:
    write_card(tmp_path / "mill.card", Keys("another mill").agent_card)
    done = run("verify", str(bundle), "--agent-card", str(tmp_path / "mill.card"))
    assert done.exit_code == 1
    assert "FORGED" in done.output


def key_file(path: Path, name: str) -> Path:
    seed = hashlib.sha256(f"open {name}".encode()).digest()
    path.write_text(f"millgate-private-key/1 xwing\n{base64.b64encode(seed).decode()}\n")
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("who", ["mill audit", "brain"])
def test_single_messages_are_disclosed_by_either_side_and_all_others_stay_closed(
    tmp_path: Path, bundle: Path, who: str
) -> None:
    with reading(bundle) as opened:
        wanted = next(one for one in opened.leaves() if one.sequence == 5)
    key, out = key_file(tmp_path / "key", who), tmp_path / "court.zip"
    done = run(
        "disclose",
        str(bundle),
        "--key",
        str(key),
        "--message",
        wanted.digest.hex()[:12],
        "--out",
        str(out),
    )
    assert done.exit_code == 0, done.output
    csv = tmp_path / "values.csv"
    done = run("verify", str(out), "--csv", str(csv))
    assert done.exit_code == 0, done.output
    assert "the content of sequence 5" in done.output
    rows = csv.read_text("utf-8-sig").splitlines()
    assert len(rows) == 2
    assert rows[1].endswith("0.55")
    report = checked(out)
    assert len(report.disclosed) == 1
    false = changed(out, flip("disclosed", 20))
    assert any("not what the agent committed to" in t for t in said(checked(false), Grade.FORGED))


def test_a_stranger_discloses_nothing(tmp_path: Path, bundle: Path) -> None:
    key, out = key_file(tmp_path / "key", "stranger"), tmp_path / "court.zip"
    with reading(bundle) as opened:
        digest = opened.leaves()[0].digest.hex()
    with pytest.raises(SystemExit) as done:
        millgate.main(
            [
                "evidence",
                "disclose",
                str(bundle),
                "--key",
                str(key),
                "--message",
                digest,
                "--out",
                str(out),
            ]
        )
    assert done.value.code == 1
    assert not out.exists()


def test_cards_come_back_from_their_text() -> None:
    text = card_text(KEYS.agent_card)
    assert card_from_text(text.encode(), AgentCard) == KEYS.agent_card


def test_the_bundle_tells_a_reader_what_it_is(bundle: Path) -> None:
    with zipfile.ZipFile(bundle) as archive:
        about = archive.read("README.txt").decode()
    assert "millgate evidence verify" in about
    assert "证据包" in about
