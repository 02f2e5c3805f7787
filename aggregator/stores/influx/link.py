"""The connection to InfluxDB, and what its refusals mean; the only place its client is used."""

import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import urllib3
from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.client.write_api import SYNCHRONOUS, WriteApi
from influxdb_client.domain.write_precision import WritePrecision
from influxdb_client.rest import ApiException

from aggregator.stores import StoreUnavailable
from aggregator.stores.influx.influxql import Answer, parse
from protocols.frame import SECOND
from protocols.language import for_everyone, heard, tr

_MS: Final = 10**6
_WAIT: Final = frozenset({408, 425, 429})
_NOT_IMPLEMENTED: Final = 501
_UNKNOWN: Final = ("not supported", "unsupported", "not implemented", "error parsing query")


class Called(NamedTuple):
    """What faults call the server, and the settings of who talks to it.

    Attributes:
        product: the server's own name.
        url, token_file, ca_file: where a person writes them.
    """

    product: str = "InfluxDB"
    url: str = "store.url"
    token_file: str = "store.token_file"  # noqa: S105 - the name of a setting
    ca_file: str = "store.ca_file"


class NotTaken(Exception):
    """InfluxDB will not take this request; `reason` says why, without any value in it."""

    def __init__(self, reason: str) -> None:
        super().__init__(heard(reason))
        self.reason = heard(reason)


class TooLarge(Exception):
    """The request is larger than InfluxDB takes."""


class Link:
    """Requests to one bucket, connecting when needed; the token is read anew after a refusal.

    Nothing of what InfluxDB answers goes into an error's text, nor into its chain: its
    messages quote the lines they are about.
    """

    def __init__(
        self,
        url: str,
        bucket: str,
        *,
        org: str,
        token_file: Path | None,
        ca_file: Path | None,
        timeout_ns: int,
        called: Called,
    ) -> None:
        self._called = called
        self.where = f"{url}/{bucket}"
        self._url = url
        self._bucket = bucket
        self._org = org
        self._token_file = token_file
        self._ca_file = str(ca_file) if ca_file else None
        self._timeout_ns = timeout_ns
        self._client: InfluxDBClient | None = None
        self._writer: WriteApi | None = None
        self._pool: urllib3.PoolManager | None = None
        self._headers: dict[str, str] = {}
        self._kept = False

    def write(self, body: bytes) -> None:
        """Post line protocol; the database is made when it is missing.

        Raises:
            StoreUnavailable: not now.
            NotTaken: never so; other lines of the request may have been written.
            TooLarge: not in one piece.
        """
        if not self._post(body):
            with suppress(NotTaken):
                self.ask(f'CREATE DATABASE "{self._bucket}"', change=True)
            if not self._post(body):
                raise self._no_bucket()

    def ask(self, statement: str, *, change: bool = False) -> tuple[list[Answer], bool]:
        """Return a statement's answer, and whether rows were cut off by the server's own limit.

        What is not there yet, database or measurement, has an empty answer.

        Raises:
            StoreUnavailable: InfluxDB cannot answer now.
            NotTaken: it does not know such a statement.
        """
        pool = self._connect()[1]
        fields = {"db": self._bucket, "epoch": "ns", "q": statement}
        kind: dict[str, Any] = {"encode_multipart": False} if change else {}
        try:
            answer = pool.request(
                "POST" if change else "GET",
                f"{self._url}/query",
                fields=fields,
                headers=self._headers,
                **kind,
            )
            status, body = answer.status, answer.data
        except urllib3.exceptions.HTTPError:
            raise self._silent() from None
        if status == 404 and b"database not found" not in body:
            raise self._no_bucket()
        if status != 404:
            self._check(status, "", answer.headers.get("Retry-After"))
        return self._read(body)

    def close(self) -> None:
        """Close the connections; the next request would open new ones."""
        if self._client is not None:
            self._client.close()  # type: ignore[no-untyped-call]  # not annotated in the library
        if self._pool is not None:
            self._pool.clear()
        self._client = self._writer = self._pool = None

    def _post(self, body: bytes) -> bool:
        """Post line protocol; False says that there is no such database."""
        writer = self._connect()[0]
        try:
            writer.write(
                self._bucket,
                self._org,
                body,
                WritePrecision.NS,  # type: ignore[arg-type]  # the library's constant is a plain str
            )
        except ApiException as error:
            if error.status == 404:
                return False
            if error.status == 413:
                raise TooLarge from None
            self._check(error.status or 0, _reason(error.body), _retry_after(error))
        except (urllib3.exceptions.HTTPError, UnicodeDecodeError):
            # A proxy's own page need not be UTF-8, which the client takes for granted.
            raise self._silent() from None
        self._kept = True
        return True

    def _connect(self) -> tuple[WriteApi, urllib3.PoolManager]:
        if self._writer is None or self._pool is None:
            token = self._token()
            self._headers = {"Authorization": f"Token {token}"} if token else {}
            self._client = InfluxDBClient(
                self._url,
                token,
                timeout=max(1, self._timeout_ns // _MS),
                org=self._org,
                ssl_ca_cert=self._ca_file,
            )
            self._writer = self._client.write_api(write_options=SYNCHRONOUS)
            self._pool = urllib3.PoolManager(
                retries=False, timeout=self._timeout_ns / SECOND, ca_certs=self._ca_file
            )
        return self._writer, self._pool

    @for_everyone()
    def _token(self) -> str:
        if self._token_file is None:
            return ""
        try:
            return self._token_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            raise StoreUnavailable(
                tr("the token file cannot be read", "无法读取令牌文件"),
                where=str(self._token_file),
                remedy=tr(
                    f"put {self._called.product}'s token into it, readable by the user Millgate runs as",
                    f"请写入 {self._called.product} 令牌，并允许运行 Millgate 的用户读取",
                ),
            ) from None

    @for_everyone()
    def _read(self, body: bytes) -> tuple[list[Answer], bool]:
        try:
            answers, error, cut = parse(body)
        except (ValueError, LookupError, AttributeError, TypeError):
            raise self._unavailable(
                self._other(),
                tr(f"check {self._called.url}", f"请检查 {self._called.url}"),
            ) from None
        if "database not found" in error and self._kept:
            # It takes what is written, so reading goes somewhere else: InfluxDB 2 without mapping.
            raise self._no_bucket()
        if "not found" in error:
            return [], False
        if any(sign in error for sign in _UNKNOWN):
            raise NotTaken(tr("the statement is not supported", "不支持该语句"))
        if error:
            raise self._unavailable(
                tr(
                    f"{self._called.product} cannot answer a query",
                    f"{self._called.product} 无法应答查询",
                ),
                tr(
                    f"look into {self._called.product}'s log", f"请查看 {self._called.product} 日志"
                ),
            )
        return answers, cut

    @for_everyone()
    def _check(self, status: int, reason: str, retry_after: str | None) -> None:
        if 200 <= status < 300:
            return
        if status in {401, 403}:
            self.close()
            raise self._unavailable(
                tr(
                    f"{self._called.product} does not accept the token",
                    f"{self._called.product} 不接受令牌",
                ),
                tr(
                    f"put a token that may read and write bucket {self._bucket} into {self._called.token_file}",
                    f"请在 {self._called.token_file} 中放入可读写桶 {self._bucket} 的令牌",
                ),
            )
        if (status >= 500 and status != _NOT_IMPLEMENTED) or status in _WAIT:
            fault = self._unavailable(
                tr(
                    f"{self._called.product} answers with error {status}",
                    f"{self._called.product} 返回错误 {status}",
                ),
                tr("it is overloaded or failing: look into its log", "过载或故障：请查看其日志"),
            )
            fault.retry_after_s = _seconds(retry_after)
            raise fault
        if status >= 400:
            raise NotTaken(reason or tr(f"error {status}", f"错误 {status}"))
        raise self._unavailable(
            self._other(),
            self._check_address(),
        )

    def _check_address(self) -> str:
        url, ca_file = self._called.url, self._called.ca_file
        by = tr(f"{ca_file} or " if ca_file else "", f"{ca_file} 或" if ca_file else "")
        return tr(
            f"check {url}, and that its certificate is by {by}a public authority",
            f"请检查 {url}，及其证书是否由{by}公共机构签发",
        )

    def _other(self) -> str:
        name = self._called.product
        return tr(f"what answers is not {name}", f"应答方不是 {name}")

    @for_everyone()
    def _silent(self) -> StoreUnavailable:
        self.close()
        return self._unavailable(
            tr(f"{self._called.product} does not answer", f"{self._called.product} 无应答"),
            tr(
                f"check that it runs, that {self._called.url} is right, and the network between",
                f"请检查其是否运行、{self._called.url} 是否正确以及网络",
            ),
        )

    @for_everyone()
    def _no_bucket(self) -> StoreUnavailable:
        return self._unavailable(
            tr(f"{self._called.product} has no such bucket", f"{self._called.product} 中没有此桶"),
            tr(
                f"make bucket {self._bucket}; in InfluxDB 2 also map database {self._bucket},"
                " policy autogen, to it (influx v1 dbrp create)",
                f"请建立桶 {self._bucket}；InfluxDB 2 还须将数据库 {self._bucket}、保留策略 autogen"
                " 映射到它（influx v1 dbrp create）",
            ),
        )

    def _unavailable(self, what: str, remedy: str) -> StoreUnavailable:
        return StoreUnavailable(what, where=self.where, remedy=remedy)


def _retry_after(error: ApiException) -> str | None:
    # The client has none where nothing came over HTTP.
    headers: Mapping[str, str] = error.headers or {}
    return headers.get("Retry-After")


def _seconds(retry_after: str | None) -> float:
    """Return how long to wait: seconds, or until a date (RFC 9110, 10.2.3); 0 for anything else."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        until = parsedate_to_datetime(text)
        return max(0.0, (until - datetime.now(until.tzinfo or UTC)).total_seconds())
    except (ValueError, TypeError):
        return 0.0


def _reason(body: object) -> str:
    """Say why lines were not taken, in our words: InfluxDB's would quote the lines."""
    try:
        found = json.loads(str(body))
    except ValueError:
        return ""
    text = str(found.get("error") or found.get("message")) if isinstance(found, dict) else ""
    known = {
        "field type conflict": tr("a field has another type than before", "字段类型与已存不符"),
        "beyond retention policy": tr("rows are older than the bucket keeps", "行早于桶的保留期"),
        "max-values-per-tag": tr("too many values of one tag", "单个标签取值过多"),
        "max-series-per-database": tr("too many series", "序列过多"),
    }
    return next((words for sign, words in known.items() if sign in text), "")
