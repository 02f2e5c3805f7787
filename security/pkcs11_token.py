"""A P-256 key in a token that is met with PKCS#11; needs the extra `millgate[token]` (python-pkcs11).

The key's place is a PKCS #11 URI (RFC 7512) that names token, key, driver and the file of the PIN:

    pkcs11:token=mill;object=signing?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=/etc/millgate/pin

The PIN itself stands in no setting and no argument. After a wrong one none is tried again by itself:
tokens lock for good after a few.
"""

import hashlib
import importlib
import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from protocols.errors import MillgateError
from protocols.language import tr
from protocols.places import is_credential
from security.at_rest import read_pin
from security.keys import BadSignature, VerifyKey
from security.schemes import P256, low_s
from security.secret import Secret

PREFIX: Final = "pkcs11:"
_PATH: Final = frozenset({"token", "serial", "object", "id"})
_QUERY: Final = frozenset({"module-path", "pin-source"})
_PAIR: Final = re.compile(r"([a-z0-9_-]+)=(.+)")
_POINT: Final = bytes([4, P256.public_bytes])
"""What stands before an uncompressed point of P-256 in DER: an octet string of 65 bytes."""


class TokenFault(MillgateError):
    """A token that does not answer, or whose answer is of no use."""


@dataclass(frozen=True, slots=True)
class KeyPlace:
    """Where a key in a token is, as a PKCS #11 URI says it.

    Attributes:
        text: the URI.
        token, serial: label and serial number of the token; one of them may be empty.
        label, id: of the key; one of them may be empty.
        module: the driver.
        pin: file or credential of the PIN.
    """

    text: str
    token: str
    serial: bytes
    label: str
    id: bytes
    module: Path
    pin: Path

    def fault(self, what: str, remedy: str = "") -> TokenFault:
        """Return a fault of this token."""
        named = self.text.partition("?")[0]
        return TokenFault(
            what, where=named, remedy=remedy or tr("see docs/keys.md", "见 docs/keys.zh-CN.md")
        )


def is_pkcs11(place: Path) -> bool:
    """Tell whether a place is a PKCS #11 URI."""
    return str(place).startswith(PREFIX)


def read_place(place: Path) -> KeyPlace:
    """Read a PKCS #11 URI.

    Raises:
        TokenFault: when a part is missing, stands there twice, or is not one that is known.
    """
    text = str(place)
    path, _, query = text.removeprefix(PREFIX).partition("?")
    found = _parts(text, path, ";", _PATH) | _parts(text, query, "&", _QUERY)
    missing = [name for name in sorted(_QUERY) if name not in found]
    missing += [] if found.keys() & {"token", "serial"} else ["token"]
    missing += [] if found.keys() & {"object", "id"} else ["object"]
    if missing:
        names = ", ".join(missing)
        raise _unusable(text, tr(f"{names} is missing", f"缺少 {names}"))
    pin = Path(found["pin-source"].decode().removeprefix("file:"))
    module = Path(found["module-path"].decode())
    if not module.is_absolute() or not (pin.is_absolute() or is_credential(pin)):
        what = tr(
            "module-path and pin-source are absolute paths, or pin-source a credential",
            "module-path 与 pin-source 须为绝对路径，pin-source 也可为凭据",
        )
        raise _unusable(text, what)
    return KeyPlace(
        text,
        token=found.get("token", b"").decode(),
        serial=found.get("serial", b""),
        label=found.get("object", b"").decode(),
        id=found.get("id", b""),
        module=module,
        pin=pin,
    )


def _parts(text: str, part: str, between: str, known: frozenset[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for pair in filter(None, part.split(between)):
        match = _PAIR.fullmatch(pair)
        name = match[1] if match else ""
        if match is None or name not in known or name in found:
            # The PIN could be what stands there: only the name is told.
            said = name or tr("something without a name", "无名称的内容")
            raise _unusable(text, tr(f"{said} cannot stand here", f"此处不能写 {said}"))
        found[name] = unquote(match[2], "latin-1").encode("latin-1")
    try:
        for value in (value for name, value in found.items() if name not in {"serial", "id"}):
            value.decode()
    except UnicodeDecodeError:
        raise _unusable(text, tr("it is not UTF-8", "不是 UTF-8")) from None
    return found


def _unusable(text: str, what: str) -> TokenFault:
    return TokenFault(
        tr(f"this is not the place of a key in a token: {what}", f"不是令牌中密钥的位置：{what}"),
        where=text.partition("?")[0].partition(";")[0],
        remedy=("pkcs11:token=TOKEN;object=KEY?module-path=/…/DRIVER.so&pin-source=/…/PIN-FILE"),
    )


class Pkcs11Signer:
    """A P-256 key in a token; see `security.keys.Signer`.

    Attributes:
        public: the public key that the token holds beside the private one.
    """

    __slots__ = ("_key", "_library", "_lock", "_place", "_session", "public")

    def __init__(self, place: Path, *, once: bool = False) -> None:
        """Meet the token and log in.

        Args:
            place: a PKCS #11 URI.
            once: whether to try the PIN also after a wrong one; for a person who has mended it.

        Raises:
            TokenFault: when the token is not there, or gives no P-256 key.
            KeyFault, NoCredential: when the PIN cannot be read.
        """
        self._place = read_place(place)
        self._library = _library(self._place)
        self._lock = threading.Lock()
        try:
            self._session = _open(self._library, self._place, once=once)
            self._key = self._find("PRIVATE_KEY")
            self.public = VerifyKey(_point(self._find("PUBLIC_KEY"), self._library), P256)
        except self._library.PKCS11Error as error:
            raise _fault(self._place, error) from None
        if not self.public.is_sound():
            raise self._place.fault(
                tr("the token's key is not a P-256 key", "令牌中的密钥不是 P-256 密钥")
            )

    def sign(self, data: bytes) -> bytes:
        """Return the signature of `data`, 64 bytes, in the form that `security.schemes.low_s` gives.

        Raises:
            TokenFault: when the token is gone, or gives something else.
        """
        digest = hashlib.sha256(data).digest()
        try:
            with self._lock:
                found = self._key.sign(digest, mechanism=self._library.Mechanism.ECDSA)
        except self._library.PKCS11Error as error:
            raise _fault(self._place, error) from None
        half = P256.signature_bytes // 2
        r, s = int.from_bytes(found[:half], "big"), int.from_bytes(found[half:], "big")
        try:
            signature = low_s(r, s)
            self.public.verify(signature, data)
        except (BadSignature, OverflowError):
            raise self._place.fault(
                tr("the token's signature is not right", "令牌给出的签名无效")
            ) from None
        return signature

    def _find(self, kind: str) -> Any:
        place = self._place
        wanted = {"label": place.label or None, "id": place.id or None}
        return self._session.get_key(
            object_class=self._library.ObjectClass[kind],
            key_type=self._library.KeyType.EC,
            **wanted,
        )


def make_key(place: Path) -> VerifyKey:
    """Make a P-256 key in a token, which never gives it out, and return its public half.

    Raises:
        TokenFault: when there is one of this name already, or the token makes none.
        KeyFault, NoCredential: when the PIN cannot be read.
    """
    found = read_place(place)
    library = _library(found)
    kind, attribute = library.KeyType.EC, library.Attribute
    try:
        with _open(library, found, writes=True) as session:
            same = {attribute.CLASS: library.ObjectClass.PRIVATE_KEY}
            same |= {attribute.LABEL: found.label} if found.label else {}
            same |= {attribute.ID: found.id} if found.id else {}
            if list(session.get_objects(same)):
                raise found.fault(
                    tr("a key is there already and is not overwritten", "密钥已存在，不会覆盖"),
                    tr("choose another object= or id=", "请更换 object= 或 id="),
                )
            curve = library.util.ec.encode_named_curve_parameters("secp256r1")
            session.create_domain_parameters(
                kind, {attribute.EC_PARAMS: curve}, local=True
            ).generate_keypair(
                label=found.label or None,
                id=found.id or hashlib.sha256(found.label.encode()).digest()[:8],
                store=True,
                private_template={attribute.EXTRACTABLE: False, attribute.SENSITIVE: True},
            )
    except library.PKCS11Error as error:
        raise _fault(found, error) from None
    return Pkcs11Signer(place).public


def _library(place: KeyPlace) -> Any:
    try:
        return importlib.import_module("pkcs11")
    except ImportError:
        raise place.fault(
            tr("support for tokens is not installed", "未安装令牌支持"),
            tr(
                "pip install python-pkcs11 (the extra millgate[token])",
                "pip install python-pkcs11（可选组件 millgate[token]）",
            ),
        ) from None


def _open(library: Any, place: KeyPlace, *, writes: bool = False, once: bool = False) -> Any:
    """Open a session that is logged in.

    Raises:
        TokenFault: when a wrong PIN was given before, and this is not to be tried once more.
    """
    names = {"token_label": place.token or None, "token_serial": place.serial or None}
    token = library.lib(str(place.module)).get_token(
        **{name: value for name, value in names.items() if value}
    )
    low = library.TokenFlag.USER_PIN_COUNT_LOW | library.TokenFlag.USER_PIN_FINAL_TRY
    if token.flags & low and not once:
        raise place.fault(
            tr(
                "a wrong PIN was given to the token; none is tried again by itself, lest it locks",
                "此前向令牌提供了错误的 PIN；为避免锁定，不再自动尝试",
            ),
            tr(
                f"correct {place.pin}, then try it once: millgate keys token 'URI' --try",
                f"请更正 {place.pin}，再尝试一次：millgate keys token 'URI' --try",
            ),
        )
    pin: Secret[str] = read_pin(place.pin)
    try:
        return token.open(rw=writes, user_pin=pin.reveal())
    except library.UserAlreadyLoggedIn:
        # Logging in counts for all sessions of a process.
        return token.open(rw=writes)


def _point(key: Any, library: Any) -> bytes:
    point = bytes(key[library.Attribute.EC_POINT])
    return point.removeprefix(_POINT) if len(point) == len(_POINT) + P256.public_bytes else point


def _fault(place: KeyPlace, error: Exception) -> TokenFault:
    name = type(error).__name__
    said, remedy = {
        "NoSuchToken": (
            tr("there is no such token", "没有此令牌"),
            tr("plug it in; compare its label", "请插入令牌并核对标签"),
        ),
        "NoSuchKey": (
            tr("the token has no such P-256 key", "令牌中没有此 P-256 密钥"),
            "millgate keys token 'URI' --make",
        ),
        "MultipleTokensReturned": (
            tr("several tokens are called so", "有多个令牌同名"),
            tr("give serial=", "请给出 serial="),
        ),
        "MultipleObjectsReturned": (
            tr("several keys are called so", "有多个密钥同名"),
            tr("give id=", "请给出 id="),
        ),
        "PinIncorrect": (
            tr("the PIN is wrong", "PIN 错误"),
            tr(f"correct {place.pin}", f"请更正 {place.pin}"),
        ),
        "PinLocked": (
            tr("the token is locked after wrong PINs", "令牌因多次 PIN 错误而锁定"),
            tr("its security officer unlocks it", "请由令牌管理员（SO）解锁"),
        ),
    }.get(name, (tr(f"the token does not do it ({name})", f"令牌未能完成（{name}）"), ""))
    return place.fault(said, remedy)
