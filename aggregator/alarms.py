"""Early warning (预警): the names of all alarms, how grave each is, and what it says to a person.

An alarm names an exact range: sequences of a chain, numbers of attestations, versions, moments or
seconds, as its kind has it. It ends by itself when what it warns of is over; of what has happened
and cannot be undone (a gap, a refusal), when a person has seen it or a week has passed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from aggregator.record import Alarm
from protocols.language import tr

MESSAGES_MISSING: Final = "messages_missing"
CHAIN_DIFFERS: Final = "chain_differs"
ATTESTATION_MISSING: Final = "attestation_missing"
ATTESTATION_LATE: Final = "attestation_late"
EQUIVOCATION: Final = "equivocation"
EPOCH_UNEXPLAINED: Final = "epoch_unexplained"
GAP: Final = "gap"
STOPPED: Final = "stopped"
EXPIRED: Final = "expired"
REFUSAL: Final = "refusal"
REVOKED_KEY: Final = "revoked_key"
SILENCE: Final = "silence"
POLICY_OLDER: Final = "policy_older"
POLICY_ENDS: Final = "policy_ends"
POLICY_ENDED: Final = "policy_ended"
CLOCK_AHEAD: Final = "clock_ahead"
CLOCK_BEHIND: Final = "clock_behind"
PASSED_OVER: Final = "passed_over"
BRAIN_CLOCK: Final = "brain_clock"
BRAIN_AHEAD: Final = "brain_ahead"
CERTIFICATE_ENDS: Final = "certificate_ends"
CERTIFICATE_ENDED: Final = "certificate_ended"

BRAIN: Final = 0
"""In an alarm's `agent`: it concerns the brain itself."""

HAPPENED: Final = frozenset({GAP, REFUSAL, REVOKED_KEY, ATTESTATION_MISSING, EPOCH_UNEXPLAINED})
"""Kinds that do not end by themselves before `HAPPENED_S`: what they tell of has happened."""

HAPPENED_S: Final = 7 * 86_400

RIGHT_S: Final = 900
"""For so long a clock that was ahead must be right before `CLOCK_AHEAD` ends; its `last` is since when it is."""

AWAITING: Final = (
    MESSAGES_MISSING,
    ATTESTATION_LATE,
    SILENCE,
    POLICY_OLDER,
    POLICY_ENDS,
    POLICY_ENDED,
    CLOCK_AHEAD,
    CLOCK_BEHIND,
    CERTIFICATE_ENDS,
    CERTIFICATE_ENDED,
)
"""Kinds that ask something more of an agent; of one that is revoked nothing is awaited any more."""

CERTIFICATES: Final = (
    ("of the API", "API "),
    ("of the broker's authority", "消息代理颁发机构"),
    ("that the brain shows to the broker", "产业大脑出示给消息代理"),
    ("of the endpoint where factories join", "工厂接入端点"),
    ("of the authority that vouches for factories", "为工厂签发证书的颁发机构"),
    ("of the broker", "消息代理"),
)
"""Which certificate an alarm of one of the brain's is about: its `stream` counts here."""

_AGENTS: Final = ("that the agent shows to the broker", "代理程序出示给消息代理")


class Severity(StrEnum):
    """How grave an alarm is.

    `fault`: data is lost, missing or contradicts itself, or nothing comes. `warning`: it will be
    so unless somebody does something.
    """

    WARNING = "warning"
    FAULT = "fault"


Words = tuple[str, str]
"""One line for a person, in English and in Chinese."""


@dataclass(frozen=True, slots=True)
class _Kind:
    severity: Severity
    words: Callable[[Alarm], Words]


def severity_of(kind: str) -> Severity:
    """Return how grave alarms of a kind are; one of a later version counts as a fault."""
    found = _KINDS.get(kind)
    return Severity.FAULT if found is None else found.severity


def words_of(alarm: Alarm) -> Words:
    """Return an alarm as one line for a person."""
    found = _KINDS.get(alarm.kind)
    if found is None:
        said = f"{alarm.kind} {_span(alarm)} {_chain(alarm)[0]}"
        return said, said
    return found.words(alarm)


def in_words(alarm: Alarm) -> str:
    """Return an alarm as one line in the language of this process."""
    return tr(*words_of(alarm))


def _span(alarm: Alarm) -> str:
    return f"{alarm.first}" if alarm.first == alarm.last else f"{alarm.first}-{alarm.last}"


def _chain(alarm: Alarm) -> Words:
    return (
        f"stream {alarm.stream}, epoch {alarm.epoch}",
        f"流 {alarm.stream}，纪元 {alarm.epoch}",
    )


def _moment(seconds: int) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%SZ}"
    except (OverflowError, ValueError, OSError):
        return f"{seconds}"


def _messages_missing(alarm: Alarm) -> Words:
    (en, zh), span = _chain(alarm), _span(alarm)
    return (
        f"messages {span} of {en} were attested an hour ago or earlier and have not come",
        f"{zh} 的消息 {span} 在一小时前或更早已被见证，但至今未到",
    )


def _chain_differs(alarm: Alarm) -> Words:
    (en, zh), span = _chain(alarm), _span(alarm)
    return (
        f"message {span} of {en} is not the one that was attested",
        f"{zh} 的消息 {span} 与所见证的不是同一条",
    )


def _attestation_missing(alarm: Alarm) -> Words:
    span = _span(alarm)
    return f"attestation {span} never came, a later one did", f"见证 {span} 未到，而后续见证已到"


def _attestation_late(alarm: Alarm) -> Words:
    span = _span(alarm)
    return (
        f"attestation {span} is overdue: none for more than two hours",
        f"见证 {span} 逾期：已超过两小时没有见证",
    )


def _equivocation(alarm: Alarm) -> Words:
    (en, zh), span = _chain(alarm), _span(alarm)
    return (
        f"two different messages were signed for place {span} of {en}; the agent is quarantined",
        f"{zh} 的位置 {span} 有两条不同的已签名消息；该代理程序已被隔离",
    )


def _epoch_unexplained(alarm: Alarm) -> Words:
    (en, zh), span = _chain(alarm), _span(alarm)
    return (
        f"{en} began without saying where the epoch before ended ({span} messages of it are here)",
        f"{zh} 开始时未说明上一纪元终于何处（此处有其 {span} 条消息）",
    )


def _gap(alarm: Alarm) -> Words:
    (en, zh), span = _chain(alarm), _span(alarm)
    return (
        f"the agent declared messages {span} of {en} lost",
        f"代理程序声明 {zh} 的消息 {span} 已丢失",
    )


def _stopped(alarm: Alarm) -> Words:
    return (
        f"a data officer has stopped policy {alarm.first}: nothing leaves until there is a newer one",
        f"工厂的数据官已停止策略 {alarm.first}：有更新的策略之前不再放行数据",
    )


def _expired(alarm: Alarm) -> Words:
    return (
        f"the factory declares that its policy {alarm.first} has expired: nothing leaves until a newer one",
        f"工厂声明其策略 {alarm.first} 已过期：有更新的策略之前不再放行数据",
    )


def _refusal(alarm: Alarm) -> Words:
    (en, zh), span = _chain(alarm), _span(alarm)
    return (
        f"refused among messages {span} of {en}: the brain cannot take them, the agent keeps them apart",
        f"{zh} 的消息 {span} 中有被拒收者：产业大脑无法接收，代理程序已另行保存",
    )


def _passed_over(alarm: Alarm) -> Words:
    (en, zh), span = _chain(alarm), _span(alarm)
    return (
        f"kept, but not in the series: some of messages {span} of {en}; see the log, then 'rebuild'",
        f"已留存但未进入序列：{zh} 的消息 {span} 中的部分；请查看日志，再执行 'aggregator rebuild'",
    )


def _revoked_key(alarm: Alarm) -> Words:
    (en, zh), span = _chain(alarm), _span(alarm)
    return (
        f"messages {span} of {en} came signed with a key that officers have ended; they are not taken",
        f"{zh} 的消息 {span} 使用了数据官已在该处终止的密钥签署；未予接收",
    )


def _silence(alarm: Alarm) -> Words:
    since = _moment(alarm.first)
    return f"nothing has come since {since}", f"自 {since} 起没有任何消息"


def _policy_older(alarm: Alarm) -> Words:
    return (
        f"policy {alarm.last} was announced, but the agent still seals under policy {alarm.first}",
        f"已公布策略 {alarm.last}，但代理程序仍按策略 {alarm.first} 封装",
    )


def _policy_ends(alarm: Alarm) -> Words:
    end = _moment(alarm.first)
    return (
        f"its newest policy ends at {end}; nothing leaves the factory after that",
        f"其最新策略将于 {end} 到期；到期后不再放行数据",
    )


def _policy_ended(alarm: Alarm) -> Words:
    end = _moment(alarm.first)
    return (
        f"its newest policy ended at {end}; nothing leaves the factory until there is a new one",
        f"其最新策略已于 {end} 到期；有新策略之前不再放行数据",
    )


def _clock_ahead(alarm: Alarm) -> Words:
    if alarm.last != alarm.first:
        since, end = _moment(alarm.last), _moment(alarm.last + RIGHT_S)
        return (
            f"its clock was {alarm.first} s ahead of the brain's; it is right since {since}, over at {end}",
            f"其时钟曾比产业大脑快 {alarm.first} 秒；自 {since} 起恢复正常，{end} 解除",
        )
    return (
        f"its clock is {alarm.first} s ahead of the brain's",
        f"其时钟比产业大脑快 {alarm.first} 秒",
    )


def _clock_behind(alarm: Alarm) -> Words:
    return (
        f"all it signs arrives {alarm.first} s old: its clock is behind, or something delays messages",
        f"其签名的消息到达时总是已过 {alarm.first} 秒：时钟偏慢，或消息在途中滞留",
    )


def _brain_clock(alarm: Alarm) -> Words:
    return (
        f"the brain's clock is {alarm.first} s behind what is on record: it was set back",
        f"产业大脑的时钟比已有记录慢 {alarm.first} 秒：曾被回拨",
    )


def _brain_ahead(alarm: Alarm) -> Words:
    return (
        f"the brain's clock is {alarm.first} s ahead of what agents sign; nothing is erased until it is right",
        f"产业大脑的时钟比代理程序签署的时间快 {alarm.first} 秒；校正之前不因保存期限删除数据",
    )


def _certificate(alarm: Alarm, en: str, zh: str) -> Words:
    named = CERTIFICATES if alarm.agent == BRAIN else (_AGENTS,)
    which_en, which_zh = named[min(alarm.stream, len(named) - 1)]
    end = _moment(alarm.first)
    return f"the certificate {which_en} {en} at {end}", f"{which_zh}的证书{zh} {end} 到期"


_KINDS: Final = {
    MESSAGES_MISSING: _Kind(Severity.FAULT, _messages_missing),
    CHAIN_DIFFERS: _Kind(Severity.FAULT, _chain_differs),
    ATTESTATION_MISSING: _Kind(Severity.WARNING, _attestation_missing),
    ATTESTATION_LATE: _Kind(Severity.WARNING, _attestation_late),
    EQUIVOCATION: _Kind(Severity.FAULT, _equivocation),
    EPOCH_UNEXPLAINED: _Kind(Severity.WARNING, _epoch_unexplained),
    GAP: _Kind(Severity.FAULT, _gap),
    STOPPED: _Kind(Severity.WARNING, _stopped),
    EXPIRED: _Kind(Severity.FAULT, _expired),
    REFUSAL: _Kind(Severity.FAULT, _refusal),
    PASSED_OVER: _Kind(Severity.FAULT, _passed_over),
    REVOKED_KEY: _Kind(Severity.FAULT, _revoked_key),
    SILENCE: _Kind(Severity.FAULT, _silence),
    POLICY_OLDER: _Kind(Severity.WARNING, _policy_older),
    POLICY_ENDS: _Kind(Severity.WARNING, _policy_ends),
    POLICY_ENDED: _Kind(Severity.FAULT, _policy_ended),
    CLOCK_AHEAD: _Kind(Severity.WARNING, _clock_ahead),
    CLOCK_BEHIND: _Kind(Severity.WARNING, _clock_behind),
    BRAIN_CLOCK: _Kind(Severity.FAULT, _brain_clock),
    BRAIN_AHEAD: _Kind(Severity.FAULT, _brain_ahead),
    CERTIFICATE_ENDS: _Kind(Severity.WARNING, lambda one: _certificate(one, "ends", "将于")),
    CERTIFICATE_ENDED: _Kind(Severity.FAULT, lambda one: _certificate(one, "ended", "已于")),
}

KINDS: Final = tuple(sorted(_KINDS))
"""The names of all kinds."""
