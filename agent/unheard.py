"""What a person should know of a brain that takes nothing or does not answer, for `agent status` and `doctor`."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from agent.route import UNHEARD_S
from protocols.language import tr
from protocols.moments import utc_words


class Unheard(NamedTuple):
    """What is so, and what to do about it."""

    what: str
    remedy: str

    @property
    def line(self) -> str:
        """Both in one line."""
        return f"{self.what} — {self.remedy}"


def unheard(report: Mapping[str, Any], now_s: float) -> Unheard | None:
    """Return why a connection is of no use; None where it is, or where there is none.

    A broker that shuts an agent out, since its certificate was revoked, may leave its connection open and
    swallow what it sends: of that an agent sees only that nothing is answered.

    Args:
        report: the sealed side's.
        now_s: seconds since 1970 UTC.
    """
    broker = report.get("broker", {})
    if broker.get("quarantined"):
        return Unheard(
            tr(
                "the brain takes nothing more from this agent: it was revoked there, or two messages were signed "
                "for one place; what is released waits here",
                "产业大脑不再接收本代理程序的任何内容：已在该处被吊销，或同一位置签署了两条消息；放行的数据在此等待",
            ),
            tr(
                "ask its operator, 'aggregator factories' tells which of the two it is",
                "请询问其管理员，'aggregator factories' 显示属于哪一种",
            ),
        )
    silent_s = broker.get("silent_s", 0.0)
    if not broker.get("connected") or silent_s < UNHEARD_S:
        return None
    since = utc_words(int(now_s - silent_s))
    waiting = report.get("outputs", {}).get("waiting_batches", 0)
    return Unheard(
        tr(
            f"connected, but nothing heard of the brain since {since} UTC; {waiting} message(s) wait",
            f"已连接，但自 UTC {since} 起没有产业大脑的任何应答；{waiting} 条消息等待",
        ),
        tr(
            "see that the brain runs and hears this broker; if so, ask its operator whether this agent's "
            "certificate was revoked ('aggregator factories'): the broker may leave such a connection open, mute",
            "请确认产业大脑在运行并已连接此消息代理；若是，请询问其管理员本代理程序的证书是否已被吊销"
            "（'aggregator factories'）：消息代理可能让这样的连接保持打开但静默",
        ),
    )
