"""Checks an evidence bundle, offline and without secrets, and says in plain words what it shows.

Three kinds of findings: what is *proven*, what is *missing*, and what is *forged*. A finding of the
last two kinds makes the verdict negative.
"""

import hashlib
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Final

from protocols.language import tr
from protocols.strict_cbor import Malformed, fixed
from protocols.topics import Address
from security.answers import Log, Receipt, read_answer, read_tree_head
from security.cards import AgentCard, BrainCard
from security.envelope import HASH_BYTES, Header, Sealed, commitment, parse
from security.evidence import ATTESTATION, KEPT, LOSS, REFUSED, Bundle, BundleLeaf
from security.key_list import (
    AgentKeys,
    RevokedKey,
    check_next,
    first_list,
    read_attested,
    read_keys,
)
from security.keys import BadSignature
from security.policy.bundle import SignedSheet, read_sheet
from security.policy.compiled import content_hash
from security.policy.streams import own_streams
from security.statements import ATTEST_S, Attestation, Loss, parse_statement
from security.transparency import NotProven, check_consistency, check_inclusion

_BAD: Final = (Malformed, BadSignature, NotProven, ValueError)

_LATEST_S: Final = 1 << 37
"""What is said to be later is shown as this: a calendar ends somewhere."""

_SKEW_S: Final = 300
"""So far the clocks of an agent and the brain may differ."""

Chain = tuple[Address, int, int]
"""Whose chain: address, epoch, stream."""


class Grade(Enum):
    """What a finding says."""

    PROVEN = "proven"
    NOTE = "note"
    MISSING = "missing"
    FORGED = "forged"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line for a person."""

    grade: Grade
    text: str


@dataclass(slots=True)
class Link:
    """One decided message of a chain.

    Attributes:
        header: None where its signed bytes are not in the bundle, or are not right.
    """

    leaf: BundleLeaf
    header: Header | None


@dataclass(slots=True)
class Report:
    """All findings, and what was checked.

    Attributes:
        own: the streams of the brain whose bundle it is; an agent attests those of others too.
    """

    findings: list[Finding] = field(default_factory=list)
    chains: dict[Chain, list[Link]] = field(default_factory=lambda: defaultdict(list))
    losses: dict[Chain, list[Loss]] = field(default_factory=lambda: defaultdict(list))
    attestations: dict[Address, dict[int, Attestation]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    acknowledged: dict[Chain, tuple[int, int]] = field(default_factory=dict)
    sheets: dict[bytes, SignedSheet] = field(default_factory=dict)
    disclosed: dict[bytes, tuple[Sealed, bytes]] = field(default_factory=dict)
    keys: dict[Address, AgentKeys] = field(default_factory=dict)
    own: frozenset[int] = frozenset()

    def say(self, grade: Grade, en: str, zh: str) -> None:
        """Add a finding."""
        self.findings.append(Finding(grade, tr(en, zh)))

    @property
    def holds(self) -> bool:
        """Whether nothing is missing and nothing forged."""
        return not any(one.grade in {Grade.MISSING, Grade.FORGED} for one in self.findings)


Cards = dict[Address, AgentCard]


def check(bundle: Bundle, brain: BrainCard, agents: Cards) -> Report:
    """Check a bundle against the cards of the brain and the agents.

    Raises:
        Malformed: when the bundle itself is not well formed.
    """
    report = Report(own=own_streams(content_hash(brain.encryption_key.public)))
    log = _tree_head(bundle, brain, report)
    _keys(bundle, agents, report)
    leaves = bundle.leaves()
    for leaf in leaves:
        _leaf(bundle, leaf, log, agents, report)
    _strays(bundle, leaves, report)
    _sheets(bundle, agents, report)
    _receipts(bundle, brain, agents, log, report)
    _other_attestations(bundle, agents, report)
    _equivocations(bundle, report)
    _disclosed(bundle, report)
    for chain, links in sorted(report.chains.items()):
        _chain(chain, links, report)
    _attested(bundle.span, report)
    for address in sorted(agents.keys() - report.attestations.keys()):
        report.say(
            Grade.NOTE,
            f"no attestation of agent {address.agent.hex()} is in the bundle: nothing shows that "
            "none of its messages was left out",
            f"包内没有代理程序 {address.agent.hex()} 的见证：无从证明没有遗漏其消息",
        )
    return report


def _tree_head(bundle: Bundle, brain: BrainCard, report: Report) -> Log | None:
    try:
        log, at = read_tree_head(bundle.file("tree-head.cose"), brain.receipt_key)
    except _BAD:
        report.say(
            Grade.FORGED,
            "the tree head is not signed by the brain's receipt key",
            "日志树头并非由产业大脑的回执密钥签署",
        )
        return None
    report.say(
        Grade.PROVEN,
        f"the brain ({brain.name}) signed a log of {log.size} entries on {_at(at)}",
        f"产业大脑（{brain.name}）于 {_at(at)} 签署了共 {log.size} 条的日志",
    )
    return log


def _leaf(bundle: Bundle, leaf: BundleLeaf, log: Log | None, agents: Cards, report: Report) -> None:
    if log is not None:
        try:
            check_inclusion(leaf.place, log.size, leaf.digest, leaf.proof, log.root)
        except NotProven:
            report.say(
                Grade.FORGED,
                f"entry {leaf.place} is not in the signed log",
                f"第 {leaf.place} 条不在已签署的日志中",
            )
            return
    card = agents.get(leaf.address)
    if card is None:
        report.say(
            Grade.FORGED,
            f"entry {leaf.place} is of an agent without a card: {leaf.address.agent.hex()}",
            f"第 {leaf.place} 条所属代理程序没有名片：{leaf.address.agent.hex()}",
        )
        return
    signed = bundle.message(leaf.digest)
    if signed and hashlib.sha256(signed).digest() != leaf.digest:
        report.say(
            Grade.FORGED,
            f"the bytes of entry {leaf.place} were changed: their hash is another",
            f"第 {leaf.place} 条的内容被改动：哈希不符",
        )
        signed = b""
    try:
        _TAKE[leaf.kind](leaf, signed, card, report)
    except RevokedKey:
        report.say(
            Grade.FORGED,
            f"entry {leaf.place} ({_name(leaf)}) was signed with a key that the officers had ended "
            "before this place",
            f"第 {leaf.place} 条（{_name(leaf)}）所用签名密钥已由数据官在此位置之前终止",
        )
    except (*_BAD, KeyError):
        report.say(
            Grade.FORGED,
            f"entry {leaf.place} ({_name(leaf)}) was not signed by the agent as it stands",
            f"第 {leaf.place} 条（{_name(leaf)}）并非由该代理程序如此签署",
        )


def _strays(bundle: Bundle, leaves: Sequence[BundleLeaf], report: Report) -> None:
    """Tell of messages whose entries of the log are not here; a bundle is written with both."""
    named = {f"messages/{leaf.digest.hex()}.cose" for leaf in leaves}
    strays = [name for name in bundle.files("messages") if name not in named]
    if strays:
        report.say(
            Grade.MISSING,
            f"the log entries of {len(strays)} message(s) in the bundle are missing, such as of "
            f"{strays[0]}",
            f"包内 {len(strays)} 条消息缺少日志条目，例如 {strays[0]}",
        )


def _take_message(leaf: BundleLeaf, signed: bytes, card: AgentCard, report: Report) -> None:
    chain = leaf.address, leaf.epoch, leaf.stream
    link = Link(leaf, None)
    report.chains[chain].append(link)
    if not signed:
        why = (
            ("refused and dropped", "被拒后丢弃")
            if leaf.kind == REFUSED
            else ("erased when its retention ended", "保留期满已删除")
        )
        report.say(
            Grade.NOTE,
            f"{_name(leaf)}: its bytes are not in the bundle ({why[0]}, or taken out of this file "
            "since); only its hash is proven",
            f"{_name(leaf)}：包内没有其内容（{why[1]}，或事后从文件中取出），仅证明其哈希",
        )
        return
    sealed = parse(signed)
    header = sealed.header
    place = header.epoch, header.stream, header.sequence
    report.keys[card.address].verify(sealed.signed, place)
    if (header.address, header.epoch, header.stream, header.sequence) != (*chain, leaf.sequence):
        raise Malformed("another place than the log says")
    link.header = header


def _take_loss(leaf: BundleLeaf, signed: bytes, card: AgentCard, report: Report) -> None:
    parsed, loss = parse_statement(signed)
    if not isinstance(loss, Loss) or loss.address != leaf.address:
        raise Malformed("not a loss of this agent")
    report.keys[card.address].verify(parsed, (loss.epoch, loss.stream, loss.first))
    report.losses[loss.address, loss.epoch, loss.stream].append(loss)


def _take_attestation(leaf: BundleLeaf, signed: bytes, card: AgentCard, report: Report) -> None:
    found = read_attested(signed, report.keys[card.address], card.attestation_key)
    if found.address != leaf.address:
        raise Malformed("of another agent")
    report.attestations[found.address][found.number] = found


_TAKE: Final[dict[int, Callable[[BundleLeaf, bytes, AgentCard, Report], None]]] = {
    KEPT: _take_message,
    REFUSED: _take_message,
    LOSS: _take_loss,
    ATTESTATION: _take_attestation,
}


def _keys(bundle: Bundle, agents: Cards, report: Report) -> None:
    """Find out which keys count for each agent: those of the list that its officers signed."""
    for address, card in agents.items():
        report.keys[address] = AgentKeys(card)
        name = f"keys/{address.agent.hex()}.cose"
        signed = bundle.file(name)
        if not signed:
            continue
        try:
            found = read_keys(signed, card.officers, card.threshold)
            check_next(found, first_list(card.address, card.signing_key))
        except _BAD:
            report.say(
                Grade.FORGED,
                f"{name} is not a list of this agent's keys that enough data officers signed",
                f"{name} 不是由足够数据官签署的该代理程序密钥清单",
            )
            continue
        report.keys[address] = AgentKeys(card, found)
        report.say(
            Grade.PROVEN,
            f"agent {address.agent.hex()[:8]} signed with {len(found.records)} key(s), by list "
            f"{found.number} of its officers",
            f"代理程序 {address.agent.hex()[:8]} 按数据官第 {found.number} 版清单使用过 "
            f"{len(found.records)} 个密钥",
        )


def _sheets(bundle: Bundle, agents: Cards, report: Report) -> None:
    for name in bundle.files("sheets"):
        signed = bundle.file(name)
        for card in agents.values():
            try:
                sheet = read_sheet(signed, card.officers, card.threshold)
            except _BAD:
                continue
            report.sheets[sheet.hash] = sheet
            break
        else:
            report.say(
                Grade.FORGED,
                f"{name} is not signed by enough data officers",
                f"{name} 没有足够的数据官签名",
            )


def _receipts(
    bundle: Bundle, brain: BrainCard, agents: Cards, log: Log | None, report: Report
) -> None:
    for name in bundle.files("receipts"):
        try:
            signed, proof = bundle.pair(name)
            receipt = _receipt_of(signed, brain, agents)
            if log is not None:
                _grew(receipt.log, log, proof)
        except _BAD:
            report.say(
                Grade.FORGED,
                f"{name} is not a receipt of the brain, or the log it names is not part of the "
                "signed log",
                f"{name} 不是产业大脑的回执，或其所指日志不属于已签署的日志",
            )
            continue
        for head in receipt.heads:
            chain = receipt.address, head.epoch, head.stream
            before = report.acknowledged.get(chain, (-1, 0))
            report.acknowledged[chain] = max(before, (head.sequence, receipt.issued_at))
            _head_matches(chain, head.sequence, head.digest, report)


def _receipt_of(signed: bytes, brain: BrainCard, agents: Cards) -> Receipt:
    for address in agents:
        try:
            found = read_answer(signed, address, [brain.receipt_key])
        except Malformed:
            continue
        if isinstance(found, Receipt):
            return found
    raise Malformed("not a receipt")


def _grew(older: Log, newer: Log, proof: object) -> None:
    if not isinstance(proof, list):
        raise Malformed("not a proof")
    hashes = [fixed(one, HASH_BYTES) for one in proof]
    check_consistency(older.size, older.root, newer.size, newer.root, hashes)


def _head_matches(chain: Chain, sequence: int, digest: bytes, report: Report) -> None:
    for link in report.chains.get(chain, []):
        leaf = link.leaf
        if leaf.sequence == sequence and leaf.digest != digest:
            report.say(
                Grade.FORGED,
                f"a receipt names another message than the log for {_name(leaf)}",
                f"回执与日志对 {_name(leaf)} 所指的消息不同",
            )


def _other_attestations(bundle: Bundle, agents: Cards, report: Report) -> None:
    for name in bundle.files("attestations"):
        signed = bundle.file(name)
        for card in agents.values():
            try:
                found = read_attested(signed, report.keys[card.address], card.attestation_key)
            except _BAD:
                continue
            report.attestations[found.address].setdefault(found.number, found)
            break
        else:
            report.say(
                Grade.FORGED,
                f"{name} does not carry both signatures of an agent",
                f"{name} 未同时带有代理程序的两个签名",
            )


def _equivocations(bundle: Bundle, report: Report) -> None:
    for name in bundle.files("equivocations"):
        try:
            first, second = bundle.pair(name)
            pair = parse(first), parse(second if isinstance(second, bytes) else b"")
            header = _same_place(pair, report)
        except _BAD:
            report.say(
                Grade.FORGED,
                f"{name} does not show two messages for one place",
                f"{name} 并未显示同一位置的两条消息",
            )
            continue
        report.say(
            Grade.FORGED,
            f"agent {header.agent.hex()} signed two different messages for sequence "
            f"{header.sequence} of stream {header.stream}, epoch {header.epoch}: both are here",
            f"代理程序 {header.agent.hex()} 为流 {header.stream} 纪元 {header.epoch} 序号 "
            f"{header.sequence} 签署了两条不同的消息，两条均在包内",
        )


def _same_place(pair: tuple[Sealed, Sealed], report: Report) -> Header:
    first, second = pair
    for one in pair:
        keys = report.keys.get(one.header.address)
        if keys is None:
            raise Malformed("no card")
        keys.verify(one.signed, (one.header.epoch, one.header.stream, one.header.sequence))
    places = [(h.address, h.epoch, h.stream, h.sequence) for h in (first.header, second.header)]
    if places[0] != places[1] or first.digest == second.digest:
        raise Malformed("not two messages for one place")
    return first.header


def _disclosed(bundle: Bundle, report: Report) -> None:
    for name in bundle.files("disclosed"):
        digest = bytes.fromhex(name.removeprefix("disclosed/").removesuffix(".bin"))
        padded, signed = bundle.file(name), bundle.message(digest)
        try:
            sealed = parse(signed)
        except Malformed:
            sealed = None
        right = sealed is not None and commitment(padded) == sealed.header.commitment
        if sealed is None or not right:
            report.say(
                Grade.FORGED,
                f"{name} is not what the agent committed to",
                f"{name} 与代理程序所承诺的内容不符",
            )
            continue
        report.disclosed[digest] = sealed, padded
        header = sealed.header
        report.say(
            Grade.PROVEN,
            f"the content of sequence {header.sequence} of stream {header.stream} is disclosed, and "
            "is what the agent committed to",
            f"流 {header.stream} 序号 {header.sequence} 的内容已披露，与代理程序的承诺相符",
        )


def _chain(chain: Chain, links: list[Link], report: Report) -> None:
    links.sort(key=lambda link: link.leaf.sequence)
    lost = report.losses.get(chain, [])
    for before, after in itertools.pairwise(links):
        _step(chain, before, after, lost, report)
    _summary(chain, links, report)
    _unsheeted(chain, links, report)
    for loss in lost:
        report.say(
            Grade.NOTE,
            f"the agent itself declared sequences {loss.first}-{loss.last} of "
            f"{_chain_name(chain)} lost",
            f"代理程序自行声明{_chain_name(chain)}的序号 {loss.first}-{loss.last} 丢失",
        )


def _step(chain: Chain, before: Link, after: Link, lost: Sequence[Loss], report: Report) -> None:
    first, last = before.leaf.sequence + 1, after.leaf.sequence - 1
    if first <= last:
        if not any(loss.first <= first and last <= loss.last for loss in lost):
            report.say(
                Grade.MISSING,
                f"sequences {first}-{last} of {_chain_name(chain)} are missing",
                f"{_chain_name(chain)}缺少序号 {first}-{last}",
            )
        return
    if first > last + 1:
        report.say(
            Grade.FORGED,
            f"the log has sequence {after.leaf.sequence} of {_chain_name(chain)} twice",
            f"日志中{_chain_name(chain)}的序号 {after.leaf.sequence} 出现两次",
        )
    elif after.header is not None and after.header.previous != before.leaf.digest:
        report.say(
            Grade.FORGED,
            f"sequence {after.leaf.sequence} of {_chain_name(chain)} does not follow the one "
            "before it",
            f"{_chain_name(chain)}的序号 {after.leaf.sequence} 不承接前一条",
        )


def _summary(chain: Chain, links: list[Link], report: Report) -> None:
    first, last = links[0].leaf, links[-1].leaf
    refused = sum(link.leaf.kind == REFUSED for link in links)
    policies = _policies(links, report)
    acknowledged, at = report.acknowledged.get(chain, (-1, 0))
    report.say(
        Grade.PROVEN,
        f"{_chain_name(chain)}: sent {len(links)} message(s), sequences {first.sequence}-"
        f"{last.sequence}, under {policies[0]}; by the brain's unsigned record received "
        f"{_at(first.received_s)} to {_at(last.received_s)}, {refused} refused",
        f"{_chain_name(chain)}：发送 {len(links)} 条消息，序号 {first.sequence}-{last.sequence}，"
        f"依据{policies[1]}；按产业大脑未签名的记录，于 {_at(first.received_s)} 至 "
        f"{_at(last.received_s)} 收到，拒收 {refused} 条",
    )
    if acknowledged >= last.sequence:
        report.say(
            Grade.PROVEN,
            f"the brain signed a receipt for all of them by {_at(at)}",
            f"产业大脑已于 {_at(at)} 前为其全部签署回执",
        )
    else:
        report.say(
            Grade.MISSING,
            f"no receipt in the bundle covers sequences {max(acknowledged + 1, first.sequence)}-"
            f"{last.sequence} of {_chain_name(chain)}; the signed log does",
            f"包内没有回执覆盖{_chain_name(chain)}的序号 "
            f"{max(acknowledged + 1, first.sequence)}-{last.sequence}；但已签署的日志覆盖",
        )


def _unsheeted(chain: Chain, links: list[Link], report: Report) -> None:
    """Tell of release sheets that are not here: nothing is kept before its sheet is known."""
    wanted = {
        (link.header.sheet_hash, link.header.policy_version)
        for link in links
        if link.header is not None and link.leaf.kind == KEPT
    }
    for sheet_hash, version in sorted(wanted):
        if sheet_hash not in report.sheets:
            report.say(
                Grade.MISSING,
                f"the release sheet {sheet_hash.hex()[:16]} of {_chain_name(chain)}, policy version "
                f"{version}, is missing",
                f"缺少{_chain_name(chain)}策略版本 {version} 的发布目录 {sheet_hash.hex()[:16]}",
            )


def _policies(links: list[Link], report: Report) -> tuple[str, str]:
    found = sorted(
        {
            (link.header.policy_version, link.header.sheet_hash)
            for link in links
            if link.header is not None
        }
    )
    en, zh = [], []
    for version, sheet_hash in found:
        known = report.sheets.get(sheet_hash)
        signed = known is not None and known.sheet.policy_version == version
        en.append(
            f"policy version {version}"
            + (" (its release sheet is signed by the officers)" if signed else "")
        )
        zh.append(f"策略版本 {version}" + ("（发布目录已由数据官签署）" if signed else ""))
    return ", ".join(en) or "an unknown policy", "、".join(zh) or "未知策略"


def _attested(span: tuple[int, int], report: Report) -> None:
    for address, by_number in sorted(report.attestations.items()):
        numbers = sorted(by_number)
        for first, last in _holes(numbers):
            report.say(
                Grade.MISSING,
                f"attestations {first}-{last} of agent {address.agent.hex()} are missing",
                f"代理程序 {address.agent.hex()} 缺少第 {first}-{last} 次见证",
            )
        for number in numbers:
            found = by_number[number]
            known = _known(found, by_number, span[0])
            _counts(found, known, span[1], report)
            if not any(by_number[one].epoch == found.epoch for one in numbers if one > number):
                _begins(found, known, report)
        report.say(
            Grade.PROVEN,
            f"agent {address.agent.hex()}: {len(numbers)} attestation(s) with both signatures, "
            f"{numbers[0]}-{numbers[-1]}",
            f"代理程序 {address.agent.hex()}：{len(numbers)} 次见证，两个签名均有效，"
            f"第 {numbers[0]}-{numbers[-1]} 次",
        )


def _holes(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    for before, after in itertools.pairwise(numbers):
        if after > before + 1:
            yield before + 1, after - 1


def _known(
    found: Attestation, by_number: Mapping[int, Attestation], start_s: int
) -> Mapping[int, int]:
    """Return how many messages of each stream may have come before the span, as far as is known.

    No more than the first attestation within the span that names the stream says; and none of an
    epoch that had not begun at one of them.
    """
    within = [one for one in by_number.values() if one.issued_at - _SKEW_S >= start_s]
    if any(one.number < found.number and one.epoch < found.epoch for one in within):
        return {end.stream: 0 for end in found.chains}
    known: dict[int, int] = {}
    for one in sorted(within, key=lambda one: one.number):
        for end in one.chains if one.epoch == found.epoch else ():
            known.setdefault(end.stream, end.count)
    return known


def _begins(found: Attestation, known: Mapping[int, int], report: Report) -> None:
    """Tell of chains of an epoch that begin later in the bundle than they did within the span."""
    for stream, first in sorted(known.items()):
        chain = found.address, found.epoch, stream
        here = [link.leaf.sequence for link in report.chains.get(chain, [])]
        here += [loss.first for loss in report.losses.get(chain, [])]
        if here and min(here) > first:
            report.say(
                Grade.MISSING,
                f"sequences {first}-{min(here) - 1} of {_chain_name(chain)} are missing: they were "
                "sent after an attestation within the span",
                f"{_chain_name(chain)}缺少序号 {first}-{min(here) - 1}：其发送晚于时段内的一次见证",
            )


def _counts(found: Attestation, known: Mapping[int, int], end_s: int, report: Report) -> None:
    """Hold the counts of one attestation against the chains of the bundle."""
    for end in found.chains:
        chain = found.address, found.epoch, end.stream
        links = report.chains.get(chain, [])
        if not links and end.stream not in report.own:
            continue
        newest = links[-1].leaf.sequence if links else known.get(end.stream, end.count) - 1
        newest = max([newest, *(loss.last for loss in report.losses.get(chain, []))])
        # What was attested shortly before the end of the span may have come after it.
        if newest < end.count - 1 and found.issued_at + ATTEST_S < end_s:
            report.say(
                Grade.MISSING,
                f"attestation {found.number} says that {_chain_name(chain)} had {end.count} "
                f"messages; sequences {newest + 1}-{end.count - 1} are missing",
                f"第 {found.number} 次见证称{_chain_name(chain)}有 {end.count} 条消息；缺少序号 "
                f"{newest + 1}-{end.count - 1}",
            )
        for link in links:
            if link.leaf.sequence == end.count - 1 and link.leaf.digest != end.digest:
                report.say(
                    Grade.FORGED,
                    f"{_name(link.leaf)} is not the message of attestation {found.number}",
                    f"{_name(link.leaf)} 与第 {found.number} 次见证的消息不同",
                )


def _name(leaf: BundleLeaf) -> str:
    chain = leaf.address, leaf.epoch, leaf.stream
    return tr(
        f"sequence {leaf.sequence} of {_chain_name(chain)}",
        f"{_chain_name(chain)}的序号 {leaf.sequence}",
    )


def _chain_name(chain: Chain) -> str:
    address, epoch, stream = chain
    return tr(
        f"agent {address.agent.hex()[:8]} stream {stream} epoch {epoch}",
        f"代理程序 {address.agent.hex()[:8]} 流 {stream} 纪元 {epoch}",
    )


def _at(seconds: int) -> str:
    return f"{datetime.fromtimestamp(min(seconds, _LATEST_S), UTC):%Y-%m-%d %H:%M:%SZ}"
