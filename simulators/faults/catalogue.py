"""The names of all faults, with what each does, for people."""

from typing import Final

from protocols.language import tr

MODBUS: Final = {
    "late-reply": tr(
        "the answer comes as answer to the next request", "应答迟到，落到下一个请求上"
    ),
    "wrong-transaction": tr(
        "another transaction number, other registers", "事务号不符，寄存器不符"
    ),
    "zero-transaction": tr("transaction number 0, other registers", "事务号为 0，寄存器不符"),
    "stale-data": tr(
        "the previous answer's data under a right header, as from a serial gateway",
        "报文头正确而数据属于上一应答（串口网关常见）",
    ),
    "wrong-unit": tr("number and values of another unit", "单元号不符，值为别的单元"),
    "wrong-function": tr("function and values of the sibling table", "功能码不符，值为另一张表"),
    "wrong-protocol": tr("a protocol number that is not Modbus", "协议号不是 Modbus"),
    "short-reply": tr("fewer values than asked for", "返回的值少于请求"),
    "long-reply": tr("more values than asked for", "返回的值多于请求"),
    "empty-reply": tr("success, but no values", "应答成功但没有值"),
    "byte-count-lie": tr("states another number of bytes than follow", "字节数与实际不符"),
    "length-lie": tr("states another length in its header", "报文头长度与实际不符"),
    "garbage": tr("noise instead of an answer", "应答为杂乱字节"),
    "damaged": tr("one bit of the answer is another", "应答中有一位出错"),
    "noise-then-truth": tr("stray bytes before the right answer", "正确应答前有多余字节"),
    "twice": tr("the right answer, twice", "同一应答发送两次"),
    "slow-drip": tr("the right answer, a byte at a time", "应答逐字节缓慢到达"),
    "no-reply": tr("says nothing to this request", "对该请求不应答"),
    "cut-reply": tr("hangs up in the middle of the answer", "应答中途断开"),
    "hang-up": tr("hangs up instead of answering", "不应答而断开"),
    "restart": tr("drops all connections, refuses, and comes back", "断开全部连接，拒绝连接后恢复"),
    "exception-1": tr("refuses: illegal function", "异常 1：非法功能"),
    "exception-2": tr("refuses: illegal data address", "异常 2：非法地址"),
    "exception-3": tr("refuses: illegal data value", "异常 3：非法数据值"),
    "exception-4": tr("refuses: device failure", "异常 4：设备故障"),
    "exception-6": tr("refuses: device busy", "异常 6：设备忙"),
    "exception-11": tr(
        "refuses: gateway target did not respond (0x0B)", "异常 0x0B：网关目标无应答"
    ),
}
"""Faults of single requests."""

MODBUS_SHAPES: Final = {
    "half-open": tr("accepts connections and never answers", "接受连接但从不应答"),
    "refused": tr("refuses connections", "拒绝连接"),
    "one-connection": tr("serves one connection, drops further ones", "仅允许一个连接"),
    "dead-unit": tr(
        "a gateway whose unit 2 is dead: the line waits, then 0x0B",
        "网关下 2 号单元失联：线路等待后返回 0x0B",
    ),
    "silent-unit": tr("a gateway that says nothing for unit 2", "网关对 2 号单元不应答"),
    "holes": tr("refuses addresses 100-119 and 300-309", "地址 100-119、300-309 非法"),
    "few-registers": tr("refuses more than 20 values at once", "一次超过 20 个值即拒绝"),
}
"""Faults that a Modbus device has all the time."""

OPCUA: Final = {
    "restart": tr("goes away and comes back", "重启"),
    "namespace-order": tr(
        "comes back with its namespaces in another order", "重启后命名空间顺序改变"
    ),
    "session-drop": tr("forgets its sessions, keeps the connections", "丢弃会话，连接仍在"),
    "subscription-drop": tr("forgets its subscriptions, keeps the sessions", "丢弃订阅，会话仍在"),
    "lost-notification": tr("skips a notification's number", "跳过一个通知序号"),
    "bad-status": tr(
        "20 status codes take turns; the values beside them lie",
        "20 种坏状态码轮换，附带的值是假的",
    ),
    "limit-0": tr("states operation limits of 0, which is none", "操作上限写 0（即无上限）"),
    "limit-1": tr("takes one node per call", "每次调用仅一个节点"),
    "limit-100": tr("takes 100 nodes per call", "每次调用 100 个节点"),
    "silent-limit-10": tr(
        "states no limits, and refuses more than 10 nodes per call",
        "不声明上限，但每次超过 10 个节点即拒绝",
    ),
    "two-sessions": tr("has two sessions only", "仅有两个会话"),
    "slow": tr("answers late", "应答缓慢"),
    "frozen": tr("keeps connections and says nothing", "连接仍在但无任何应答"),
    "wrong-type": tr("values of another type than the node's", "值的类型与节点不符"),
    "nan": tr("not-a-number and infinity", "NaN 与无穷大"),
    "absurd-times": tr(
        "timestamps of 1601, 2099 and 9999, or none", "时间戳为 1601、2099、9999 年或缺失"
    ),
    "bad-node": tr("one node is not there", "一个节点不存在"),
}

PROXY: Final = {
    "delay": tr("each piece waits", "逐段延迟"),
    "throttle": tr("few bytes per second", "限速"),
    "cut": tr("ends connections in the middle", "中途断开"),
    "stall": tr("holds everything back, then goes on", "暂停传输，之后继续"),
    "half-open": tr("swallows everything; the connections stay", "吞掉所有数据，连接保持"),
    "drop-bytes": tr("loses bytes in the middle", "丢失中间字节"),
}
