"""Our one asyncio face on paho-mqtt.

paho runs its network loop in a thread of its own; everything it says is handed to the event
loop. Messages wait in a bounded queue, and a full queue stops the network thread, so that the
broker keeps what we cannot take. A PUBACK proves nothing and is not waited for: only a signed
receipt does.
"""

import asyncio
import concurrent.futures
import contextlib
import logging
import random
import ssl
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from protocols.broker import LEAST_LIMIT, MAX_MESSAGE, BrokerConfig
from protocols.errors import MillgateError
from protocols.language import tr
from protocols.places import located, open_to_others
from protocols.tls import client_context, refusal, show_certificate

_MESSAGES: Final = 256
_IN_FLIGHT: Final = 64
_SESSION_S: Final = 7 * 86400
_GREET_S: Final = 5.0
_PACKET_ROOM: Final = 256
_TOO_LARGE: Final = frozenset({0x82, 0x95})
_NO_ANSWER: Final = 0x8D
_MOST_SIZES: Final = 1024

__all__ = ["MAX_MESSAGE", "BrokerConfig", "Message", "Mqtt", "NotConnected", "connection"]

_log = logging.getLogger(__name__)


class NotConnected(MillgateError):
    """There is no connection to the broker now; paho keeps trying."""


@dataclass(frozen=True, slots=True)
class Message:
    """What arrived.

    Attributes:
        topic, payload: as the broker gave them.
        acknowledge: tells the broker that it need not keep the message any longer.
    """

    topic: str
    payload: bytes
    acknowledge: Callable[[], object]


class _Client(paho.Client):
    """paho's client, whose thread lives on when what came makes it fail: it connects anew.

    Without that nobody would be told, and nothing would arrive any more.
    """

    failed: Callable[[Exception], bool]

    def loop_forever(
        self,
        timeout: float = 1.0,
        retry_first_connection: bool = False,  # noqa: FBT001, FBT002 - paho's own
    ) -> MQTTErrorCode:
        """Do as paho does, again and again, until the connection is to end."""
        while True:
            try:
                return super().loop_forever(timeout, retry_first_connection)
            except Exception as error:  # noqa: BLE001 - whatever a line can bring about, told there
                if not self.failed(error):
                    return MQTTErrorCode.MQTT_ERR_UNKNOWN
            # A refusal is met again, and told, by the loop.
            with contextlib.suppress(OSError):
                self.reconnect()


class Mqtt:
    """A connection that is kept up until the context ends.

    Attributes:
        connected: set while the broker answers and our subscriptions are asked for.
        connections: how many there have been: it tells a new one from the last, which `connected`
            alone cannot when nobody looked in between.
        messages: what arrived, at most 256 waiting.
        largest: bytes of the largest payload that the broker passes, as far as is known; with
            MQTT 5 the broker tells.
        shown: the certificate, DER, that the broker showed last; empty without TLS.
        suspects: a message was probably too large for the broker. It goes out again with every
            connection of this object, so that another is needed.
    """

    def __init__(
        self,
        config: BrokerConfig,
        client_id: str,
        subscriptions: Sequence[str],
        will: tuple[str, bytes] | None = None,
        *,
        session: bool = True,
    ) -> None:
        self.connected = asyncio.Event()
        self.connections = 0
        self.messages: asyncio.Queue[Message] = asyncio.Queue(_MESSAGES)
        self.largest = config.max_kb * 1024
        self.suspects = False
        self.shown = b""
        self._config = config
        self._sizes: dict[int, int] = {}
        self._subscriptions = list(subscriptions)
        self._loop = asyncio.get_running_loop()
        self._closing = False
        self._pause = threading.Event()
        self._said = ""
        self._up = False
        self._session = session
        self._tls: ssl.SSLContext | None = None
        self._client = self._make_client(client_id)
        if will is not None:
            self._client.will_set(will[0], will[1], qos=1, retain=True)
        if config.tls:
            self._tls = client_context(config.ca_file, config.certificate, config.private_key)
            self._client.tls_set_context(self._tls)
        if config.username:
            self._client.username_pw_set(config.username, _password(config.password_file))

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Hand a message to the network thread with QoS 1.

        Raises:
            NotConnected: when there is no connection; nothing was queued.
        """
        if not self.connected.is_set():
            raise NotConnected(
                tr("not connected to the broker", "未连接到消息代理"),
                where=self.place,
            )
        sent = self._client.publish(topic, payload, qos=1, retain=retain)
        if self._config.protocol == "mqtt5":
            if len(self._sizes) >= _MOST_SIZES:
                self._sizes.clear()
            self._sizes[sent.mid] = len(payload)

    def start(self) -> None:
        """Begin to connect, and keep connecting, in the background."""
        config = self._config
        first = random.uniform(0.5, 1.5)  # noqa: S311 - jitter, so that agents do not return in step
        self._client.reconnect_delay_set(min_delay=first, max_delay=20 * first)  # type: ignore[arg-type] # paho counts in floats
        self._client.connect_async(config.host, config.port, config.keepalive_s, **self._v5())
        self._client.loop_start()

    @property
    def place(self) -> str:
        """Where the broker is, as people write it."""
        return self._config.place

    @property
    def trouble(self) -> str:
        """What was last said to be wrong; empty while nothing is."""
        return self._said

    async def stop(self) -> None:
        """Disconnect and end the network thread."""
        self._closing = True
        self._pause.set()
        self._client.disconnect()
        await asyncio.to_thread(self._client.loop_stop)
        self.connected.clear()

    def _make_client(self, client_id: str) -> paho.Client:
        v5 = self._config.protocol == "mqtt5"
        client = _Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=None if v5 else not self._session,
            protocol=paho.MQTTv5 if v5 else paho.MQTTv311,
            manual_ack=True,
        )
        client.max_inflight_messages_set(_IN_FLIGHT)
        client.failed = self._on_fault
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_subscribe = self._on_subscribe
        client.on_publish = self._on_publish
        return client

    def _v5(self) -> dict[str, Any]:
        if self._config.protocol != "mqtt5":
            return {}
        if not self._session:
            return {"clean_start": True}
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call] # paho leaves it so
        properties.SessionExpiryInterval = _SESSION_S
        return {"clean_start": False, "properties": properties}

    # Those below run in paho's network thread.

    def _on_connect(
        self,
        client: paho.Client,
        _data: object,
        _flags: object,
        reason: ReasonCode,
        told: Properties | None,
    ) -> None:
        if reason.is_failure:
            self._say(
                tr(f"the broker refuses the connection: {reason}", f"消息代理拒绝连接：{reason}")
            )
            return
        self._said = ""
        self._up = True
        link = client.socket()
        if isinstance(link, ssl.SSLSocket):
            self.shown = link.getpeercert(binary_form=True) or b""
        packet = getattr(told, "MaximumPacketSize", None)
        if packet is not None:
            self.largest = min(self.largest, max(packet - _PACKET_ROOM, 1))
        if self._subscriptions:
            client.subscribe([(topic, 1) for topic in self._subscriptions])
        self._tell(self._begin)

    def _on_subscribe(
        self, _c: paho.Client, _data: object, _mid: int, reasons: list[ReasonCode], _p: object
    ) -> None:
        if any(reason.is_failure for reason in reasons):
            self._say(
                tr(
                    "the broker refuses a subscription; check its access list",
                    "消息代理拒绝订阅；请检查其访问控制",
                )
            )

    def _on_publish(
        self, _c: paho.Client, _data: object, mid: int, _reason: ReasonCode, _p: object
    ) -> None:
        self._sizes.pop(mid, None)

    def _suspect(self, reason: ReasonCode) -> None:
        """Take the largest message under way for the reason why a broker ended the connection.

        MQTT 5.0 has a code for it in DISCONNECT. Mosquitto puts that into a PUBACK, which may not
        have it (3.4.2.1), and which paho takes for the end of the connection.
        """
        size = max(self._sizes.values(), default=0)
        if reason.value in _TOO_LARGE and size > LEAST_LIMIT and not self.suspects:
            self.suspects = True
            self.largest = min(self.largest, max(size // 2, LEAST_LIMIT))

    def _on_connect_fail(self, _client: paho.Client, _data: object) -> None:
        # paho calls this while it handles the exception, and does not hand it on.
        why = refusal(sys.exception())
        if why:
            self._say(tr(f"the broker: {why}", f"消息代理：{why}"))
        else:
            self._say(tr("the broker cannot be reached", "无法连接消息代理"))

    def _on_disconnect(
        self, _c: paho.Client, _data: object, _flags: object, reason: ReasonCode, _p: object
    ) -> None:
        # Where the broker refused the connection, that was said.
        was_up, self._up = self._up and not self._closing, False
        if was_up:
            self._suspect(reason)
        if not (was_up or self._closing or self._said):
            self._say(self._never_up(reason))
        if was_up and not reason.is_failure:
            self._say(tr("the broker ended the connection", "消息代理断开了连接"))
        elif was_up:
            self._say(
                tr(
                    f"the connection to the broker is lost: {reason}",
                    f"与消息代理的连接中断：{reason}",
                )
            )
        self._tell(self.connected.clear)
        self._show_renewed()

    def _never_up(self, reason: ReasonCode) -> str:
        """Return what is wrong with a broker that took a connection, and ended it without a word."""
        if reason.value == _NO_ANSWER:
            return tr("the broker does not answer", "消息代理无应答")
        if self._config.tls:
            # In TLS 1.3 our side is done before the broker has looked at our certificate.
            return tr(
                "the broker ended the connection at once; it may not accept our certificate",
                "消息代理立即断开连接；可能不接受本机证书",
            )
        if self._config.protocol == "mqtt5":
            return tr(
                'the broker ended the connection at once; it may only speak protocol = "mqtt311"',
                '消息代理立即断开连接；可能仅支持 protocol = "mqtt311"',
            )
        return tr("the broker ended the connection at once", "消息代理立即断开连接")

    def _show_renewed(self) -> None:
        """Show the certificate that lies there now from the next connection on."""
        config = self._config
        if self._tls is None or config.certificate is None or config.private_key is None:
            return
        try:
            show_certificate(self._tls, config.certificate, config.private_key)
        except MillgateError as fault:
            # The one that was loaded before is shown again.
            self._say(str(fault))

    def _on_fault(self, error: Exception) -> bool:
        """Tell whether to connect anew, a moment later, when paho could not go on."""
        self._up = False
        if self._loop.is_closed():
            return False
        self._tell(self.connected.clear)
        fault = type(error).__name__
        self._say(
            tr(
                f"what came from the broker could not be read ({fault})",
                f"无法读取消息代理发来的内容（{fault}）",
            )
        )
        self._pause.wait(random.uniform(0.5, 1.5))  # noqa: S311 - jitter, no secret
        return not self._closing

    def _on_message(self, client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        mid, qos = message.mid, message.qos
        payload = bytes(message.payload[: MAX_MESSAGE + 1])
        taken = Message(message.topic, payload, lambda: client.ack(mid, qos))
        if self._closing:
            return
        waiting = asyncio.run_coroutine_threadsafe(self.messages.put(taken), self._loop)
        while not waiting.done() and not self._closing:
            concurrent.futures.wait([waiting], timeout=0.5)
        waiting.cancel()

    def _say(self, what: str) -> None:
        """Say once what is wrong, until something else is."""
        if what == self._said:
            return
        self._said = what
        fault = NotConnected(
            what,
            where=self.place,
            remedy=tr("trying again; nothing is lost meanwhile", "正在重试；期间数据不会丢失"),
        )
        _log.warning("%s", fault)

    def _begin(self) -> None:
        self.connections += 1
        self.connected.set()

    def _tell(self, action: Callable[[], None]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(action)


def _password(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        if open_to_others(path):
            raise MillgateError(
                tr("the password is open to other users", "其他用户可读取口令"),
                where=str(path),
                remedy=f"chmod 600 {path}",
            )
        return located(path).read_text(encoding="utf-8").strip("\r\n")
    except (OSError, UnicodeDecodeError):
        raise MillgateError(
            tr("the password cannot be read", "无法读取口令"),
            where=str(path),
            remedy=tr("put the broker's password into it", "请写入消息代理的口令"),
        ) from None


@asynccontextmanager
async def connection(
    config: BrokerConfig,
    client_id: str,
    subscriptions: Sequence[str],
    *,
    will: tuple[str, bytes] | None = None,
) -> AsyncGenerator[Mqtt, None]:
    """Keep a connection to the broker for the length of the context.

    Raises:
        MillgateError: when a key, certificate or password cannot be used.

    It does not wait for the broker: look at `connected`. `will` is the retained message that the
    broker publishes when we vanish.
    """
    link = Mqtt(config, client_id, subscriptions, will)
    link.start()
    try:
        yield link
    finally:
        await link.stop()


async def greet(config: BrokerConfig, client_id: str) -> None:
    """Connect to the broker once and part again.

    Raises:
        NotConnected: when it does not take the connection within a few seconds.
    """
    link = Mqtt(config, client_id, (), session=False)
    link.start()
    try:
        async with asyncio.timeout(_GREET_S):
            await link.connected.wait()
    except TimeoutError:
        raise NotConnected(
            link.trouble or tr("the broker does not answer", "消息代理无应答"),
            where=config.place,
            remedy=tr(
                "check that it runs, [broker] in the configuration, and the network between",
                "请检查其是否运行、配置中的 [broker] 以及网络",
            ),
        ) from None
    finally:
        await link.stop()
