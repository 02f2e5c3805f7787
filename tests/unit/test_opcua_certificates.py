"""What is read of certificates, and how strong a connection is."""

import stat
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from asyncua import ua
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from protocols.drivers.opcua.certificates import Certificate, parse_certificate, printable
from protocols.drivers.opcua.levels import level_of, offered
from protocols.drivers.opcua.pki import Own, Trusted, TrustFolder, parse_own
from security.application_certificate import create_application_certificate
from security.at_rest import KeyFault
from tests.servers.opcua import POLICIES, pair

WHOLE = pair(0).der


def test_a_certificate_tells_who_it_is_for_and_until_when() -> None:
    made = pair(0, "urn:mill:press", "press.mill", starts=-2, days=30)
    for data in (made.der, made.pem, made.der + pair(1).der):
        read = parse_certificate(data)
        assert read.der == made.der
        assert read.uris == ("urn:mill:press",)
        assert read.hosts == ("press.mill",)
        assert read.rsa_bits == 2048
        assert read.sha256 == made.certificate.fingerprint(SHA256()).hex()
        assert read.thumbprint == made.certificate.fingerprint(SHA1()).hex()  # noqa: S303 - as tools show it
        assert read.ends_ns - read.starts_ns == 30 * 86_400 * 10**9


def test_hosts_are_compared_as_hosts() -> None:
    read = parse_certificate(pair(0, host="Press.Mill").der)
    assert read.covers("press.mill.")
    assert not read.covers("press")
    assert parse_certificate(pair(0, host="::1").der).covers("0:0:0:0:0:0:0:1")


def test_a_key_of_another_kind_has_no_rsa_bits() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    rsa = pair(0).certificate
    builder = x509.CertificateBuilder(rsa.issuer, rsa.subject, key.public_key(), 1)
    made = builder.not_valid_before(rsa.not_valid_before_utc).not_valid_after(
        rsa.not_valid_after_utc
    )
    read = parse_certificate(made.sign(pair(0).private, SHA256()).public_bytes(Encoding.DER))
    assert read.rsa_bits == 0
    assert read.uris == ()


@given(st.binary(max_size=200))
def test_what_is_no_certificate_is_refused_in_one_way(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a certificate"):
        parse_certificate(data)


@given(st.integers(0, 600), st.integers(1, 255))
def test_a_damaged_certificate_is_read_or_refused_and_nothing_else(at: int, flip: int) -> None:
    damaged = bytearray(WHOLE)
    damaged[at] ^= flip
    try:
        read = parse_certificate(bytes(damaged))
    except ValueError:
        return
    assert isinstance(read, Certificate)
    assert read.sha256 != parse_certificate(WHOLE).sha256


def test_what_a_server_writes_cannot_steer_a_terminal() -> None:
    assert printable("a\x1b[2Jb\nc\u202e") == "a?[2Jb?c?"
    assert len(printable("x" * 1000)) == 200


def test_encryption_counts_more_than_the_policy() -> None:
    ranked = [level_of(policy, mode) for mode in ("Sign", "SignAndEncrypt") for policy in POLICIES]
    assert all(weaker < stronger for weaker, stronger in pairwise(ranked))
    assert str(ranked[-1]) == "Aes256_Sha256_RsaPss, SignAndEncrypt"


def test_only_names_that_protect_are_levels() -> None:
    for policy, mode in (("None", "Sign"), ("Basic256", "Sign"), ("Basic256Sha256", "None")):
        with pytest.raises(ValueError, match=r"None|not in"):
            level_of(policy, mode)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("mill") / "pki"
    create_application_certificate(
        made / "own.pem", made / "own.der", uri="urn:a", host="10.0.0.1", days=9, bits=2048
    )
    return made


async def own_in(folder: Path) -> Own:
    return await parse_own((folder / "own.pem").read_bytes(), folder / "own.pem", "")


async def test_our_certificate_is_made_private_and_never_overwritten(folder: Path) -> None:
    own = await own_in(folder)
    assert own.certificate.uris == ("urn:a",)
    assert own.certificate.covers("10.0.0.1")
    assert stat.S_IMODE((folder / "own.pem").stat().st_mode) == 0o600
    assert (folder / "own.der").read_bytes() == own.certificate.der
    assert own.key_der not in repr(own).encode()
    assert "<secret>" in repr(own)
    with pytest.raises(KeyFault, match="already"):
        create_application_certificate(
            folder / "own.pem", folder / "own.der", uri="urn:b", host="b", days=9, bits=2048
        )
    assert (await own_in(folder)).certificate == own.certificate


async def test_a_renewed_certificate_has_another_key_and_the_old_one_stays_beside(
    folder: Path,
) -> None:
    before = await own_in(folder)
    create_application_certificate(
        folder / "own.pem",
        folder / "own.der",
        uri="urn:a",
        host="b",
        days=9,
        bits=2048,
        renew=True,
    )
    after = await own_in(folder)
    assert after.certificate.uris == ("urn:a",)
    assert after.key_der != before.key_der
    old = folder / "own.pem.old"
    assert (await parse_own(old.read_bytes(), old, "")).certificate == before.certificate
    assert stat.S_IMODE(old.stat().st_mode) == 0o600


def test_a_device_has_one_trusted_certificate_and_others_keep_theirs(tmp_path: Path) -> None:
    trust = TrustFolder(tmp_path)
    assert trust.all() == []
    first, second, other = (parse_certificate(pair(number).der) for number in range(3))
    level = level_of("Basic256Sha256", "Sign")
    trust.add(Trusted(first, "press", level))
    trust.add(Trusted(other, "saw"))
    trust.add(Trusted(second, "press"))
    assert trust.find(first) is None
    assert trust.find(second) == Trusted(second, "press")
    assert trust.find(other) == Trusted(other, "saw")
    assert trust.remove(other.sha256)
    assert not trust.remove(other.sha256)
    assert [one.device for one in trust.all()] == ["press"]
    trust.add(Trusted(second, "press", level))
    assert trust.find(second) == Trusted(second, "press", level)


def test_what_a_server_offers_is_told_and_names_of_its_own_are_not_repeated() -> None:
    prefix = "http://opcfoundation.org/UA/SecurityPolicy#"

    def endpoint(policy: str, mode: ua.MessageSecurityMode) -> ua.EndpointDescription:
        described: Any = ua.EndpointDescription()
        described.SecurityPolicyUri, described.SecurityMode = prefix + policy, mode
        described.EndpointUrl = "opc.tcp://press:4840"
        return described  # type: ignore[no-any-return] # its annotations ask for other text types

    modes = ua.MessageSecurityMode
    old = [endpoint("Basic128Rsa15", modes.Sign), endpoint("None", modes.None_)]
    assert offered(old) == "Basic128Rsa15 (outdated, not taken); no security"
    assert offered([*old, endpoint("Basic256Sha256", modes.Sign)]).startswith(
        "Basic256Sha256, Sign; "
    )
    assert offered([endpoint("\x1b[2J", modes.Sign)]) == "-"
