"""The evidence bundle: a zip file of signed bytes as they came, that anybody can check offline.

It holds no secret and no key but public ones. What is inside is believed only as far as its
signatures and proofs go; `security.evidence_check` checks them.
"""

import hashlib
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from protocols import strict_cbor
from protocols.errors import MillgateError
from protocols.language import tr
from protocols.strict_cbor import Malformed, fixed, uint
from protocols.topics import ID_BYTES, Address
from security.envelope import HASH_BYTES

KEPT, REFUSED, LOSS, ATTESTATION = 0, 1, 2, 3
"""What a leaf of the log is."""

_VERSION: Final = 1
_MOST_FILES: Final = 2_000_000
_MOST_FILE: Final = 64 << 20
_MOST_LIST: Final = 1 << 30
_NAME: Final = re.compile(
    r"README\.txt|span\.cbor|leaves\.bin|brain\.card|tree-head\.cose|agents/[0-9a-f]{32}\.card"
    r"|keys/[0-9a-f]{32}\.cose|(?:messages|sheets|attestations)/[0-9a-f]{64}\.cose"
    r"|(?:receipts|equivocations)/[0-9a-f]{64}\.cbor|disclosed/[0-9a-f]{64}\.bin"
)
"""What the files of a bundle are called, and nothing else is."""

_EPOCH: Final = (1980, 1, 1, 0, 0, 0)

_ABOUT: Final = """\
This is a bundle of evidence made by Millgate: signed messages between a factory and a brain, exactly as
they came, with proofs. Check it offline:  millgate evidence verify FILE
Nothing in it is secret but what is in the folder "disclosed", if there is one.

这是 Millgate 生成的证据包：工厂与产业大脑之间的已签名消息（原样）及其证明。
离线验证：millgate evidence verify 文件
除 disclosed 目录（如有）外，包内没有任何秘密。
"""


class NotABundle(MillgateError):
    """A file that is no evidence bundle, or larger than one may be."""


@dataclass(frozen=True, slots=True)
class BundleLeaf:
    """One entry of the brain's log, with the proof that it is in there.

    Attributes:
        place: which leaf.
        kind: KEPT, REFUSED, LOSS or ATTESTATION.
        sequence: of a message; the first of a loss; the number of an attestation.
        received_s: when the brain says that it came.
        digest: hash of the signed bytes.
        proof: inclusion in the log of the tree head.
    """

    place: int
    kind: int
    address: Address
    epoch: int
    stream: int
    sequence: int
    received_s: int
    digest: bytes
    proof: tuple[bytes, ...]


def leaf_line(leaf: BundleLeaf) -> bytes:
    """Return the bytes of a leaf: one CBOR array."""
    return strict_cbor.encode(
        [
            leaf.place,
            leaf.kind,
            leaf.address.factory,
            leaf.address.agent,
            leaf.epoch,
            leaf.stream,
            leaf.sequence,
            leaf.received_s,
            leaf.digest,
            list(leaf.proof),
        ]
    )


def _read_leaf(data: bytes) -> BundleLeaf:
    item = strict_cbor.decode(data, max_bytes=1 << 16)
    if not (isinstance(item, list) and len(item) == 10 and isinstance(item[9], list)):
        raise Malformed("not a leaf")
    return BundleLeaf(
        place=uint(item[0]),
        kind=uint(item[1]),
        address=Address(fixed(item[2], ID_BYTES), fixed(item[3], ID_BYTES)),
        epoch=uint(item[4]),
        stream=uint(item[5]),
        sequence=uint(item[6]),
        received_s=uint(item[7]),
        digest=fixed(item[8], HASH_BYTES),
        proof=tuple(fixed(one, HASH_BYTES) for one in item[9]),
    )


class BundleWriter:
    """Writes a bundle; the same content gives the same bytes."""

    def __init__(self, archive: zipfile.ZipFile, span: tuple[int, int], made_s: int) -> None:
        self._archive = archive
        self._written: set[str] = set()
        self._leaves: list[bytes] = []
        self._put("README.txt", _ABOUT.encode())
        self._put("span.cbor", strict_cbor.encode([_VERSION, *span, made_s]))

    def _put(self, name: str, data: bytes) -> None:
        if name not in self._written:
            self._written.add(name)
            self._archive.writestr(zipfile.ZipInfo(name, _EPOCH), data)

    def brain(self, card: str, tree_head: bytes) -> None:
        """Add the brain's card (text) and its signed tree head."""
        self._put("brain.card", card.encode())
        self._put("tree-head.cose", tree_head)

    def agent(self, address: Address, card: str) -> None:
        """Add an agent's card (text)."""
        self._put(f"agents/{address.agent.hex()}.card", card.encode())

    def key_list(self, address: Address, signed: bytes) -> None:
        """Add the list of an agent's keys as its officers signed it."""
        self._put(f"keys/{address.agent.hex()}.cose", signed)

    def leaf(self, leaf: BundleLeaf, signed: bytes) -> None:
        """Add a leaf and, unless they are no longer there, the signed bytes that it names."""
        self._leaves.append(leaf_line(leaf))
        if signed:
            self._put(f"messages/{leaf.digest.hex()}.cose", signed)

    def sheet(self, sheet_hash: bytes, signed: bytes) -> None:
        """Add a release sheet as the officers signed it."""
        self._put(f"sheets/{sheet_hash.hex()}.cose", signed)

    def receipt(self, signed: bytes, proof: list[bytes]) -> None:
        """Add a receipt, and the proof that the log it names grew into the tree head's."""
        name = hashlib.sha256(signed).hexdigest()
        self._put(f"receipts/{name}.cbor", strict_cbor.encode([signed, proof]))

    def attestation(self, signed: bytes) -> None:
        """Add an attestation from outside the span, to compare with."""
        self._put(f"attestations/{hashlib.sha256(signed).hexdigest()}.cose", signed)

    def equivocation(self, first: bytes, second: bytes) -> None:
        """Add two messages that were signed for one place."""
        name = hashlib.sha256(second).hexdigest()
        self._put(f"equivocations/{name}.cbor", strict_cbor.encode([first, second]))

    def disclosed(self, digest: bytes, padded: bytes) -> None:
        """Add the padded plaintext of a message."""
        self._put(f"disclosed/{digest.hex()}.bin", padded)

    def finish(self) -> None:
        """Write what was gathered."""
        lines = b"".join(len(line).to_bytes(4, "big") + line for line in self._leaves)
        self._put("leaves.bin", lines)


@contextmanager
def writing(path: Path, span: tuple[int, int], made_s: int) -> Iterator[BundleWriter]:
    """Write a bundle to a new file; nothing is left when it fails.

    Raises:
        MillgateError: when the file is there already.
    """
    if path.exists():
        raise MillgateError(
            tr("there is a file already, and it is not overwritten", "文件已存在，不会覆盖"),
            where=str(path),
            remedy=tr("give another --out", "请用 --out 指定其他文件"),
        )
    part = path.with_name(f".{path.name}.part")
    try:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
            writer = BundleWriter(archive, span, made_s)
            yield writer
            writer.finish()
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


class Bundle:
    """A bundle that was opened; what its files hold is not yet believed."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        infos = archive.infolist()
        if len(infos) > _MOST_FILES:
            raise Malformed("too many files")
        if len({info.filename for info in infos}) != len(infos):
            raise Malformed("a file twice")
        self._names = [info.filename for info in infos]
        if not all(map(_NAME.fullmatch, self._names)):
            raise Malformed("a file that belongs in no bundle")
        span = strict_cbor.decode(self.file("span.cbor"), max_bytes=256)
        if not (isinstance(span, list) and len(span) == 4 and span[0] == _VERSION):
            raise Malformed("not a span")
        self.span = uint(span[1]), uint(span[2])
        self.made_s = uint(span[3])

    def file(self, name: str) -> bytes:
        """Return a file's content; empty when it is not there.

        Raises:
            Malformed: when it is larger than any may be, or damaged.
        """
        if name not in self._archive.NameToInfo:
            return b""
        limit = _MOST_LIST if name == "leaves.bin" else _MOST_FILE
        with self._archive.open(name) as file:
            # What the zip says of its size is not believed: it could hold far more.
            data = file.read(limit + 1)
        if len(data) > limit:
            raise Malformed("a file is too large")
        return data

    def files(self, folder: str) -> list[str]:
        """Return the names of the files in a folder, sorted."""
        return sorted(name for name in self._names if name.startswith(f"{folder}/"))

    def message(self, digest: bytes) -> bytes:
        """Return the signed bytes with this hash; empty when they are not here."""
        return self.file(f"messages/{digest.hex()}.cose")

    def leaves(self) -> list[BundleLeaf]:
        """Return the log's entries.

        Raises:
            Malformed: when they are not well formed, or not in the log's order.
        """
        data, at = self.file("leaves.bin"), 0
        found: list[BundleLeaf] = []
        while at < len(data):
            size = int.from_bytes(data[at : at + 4], "big")
            leaf = _read_leaf(data[at + 4 : at + 4 + size])
            if found and leaf.place <= found[-1].place:
                raise Malformed("leaves are not in order")
            found.append(leaf)
            at += 4 + size
        return found

    def pair(self, name: str) -> tuple[bytes, object]:
        """Return the two parts of a file that holds a CBOR array of two, the first of bytes."""
        item = strict_cbor.decode(self.file(name), max_bytes=1 << 20)
        if not (isinstance(item, list) and len(item) == 2 and isinstance(item[0], bytes)):
            raise Malformed("not a pair")
        return item[0], item[1]

    def copy_into(self, writer: BundleWriter) -> None:
        """Write everything once more, but for the leaves, which `finish` writes."""
        for name in self._names:
            if name not in {"leaves.bin", "README.txt", "span.cbor"}:
                writer._put(name, self.file(name))  # noqa: SLF001 - the writer of the same format
        for leaf in self.leaves():
            writer.leaf(leaf, b"")


@contextmanager
def reading(path: Path) -> Iterator[Bundle]:
    """Open a bundle.

    Raises:
        NotABundle: when it is none, or damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            yield Bundle(archive)
    except OSError as error:
        raise NotABundle(
            tr("the bundle cannot be read", "无法读取证据包"),
            where=str(path),
            remedy=tr("give the right path", "请给出正确的路径")
            if isinstance(error, FileNotFoundError)
            else error.strerror or type(error).__name__,
        ) from None
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        Malformed,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise NotABundle(
            tr("this is not an evidence bundle, or it is damaged", "这不是证据包，或已损坏"),
            where=str(path),
            remedy=str(error) or type(error).__name__,
        ) from None
