"""The certificate authority: what it vouches for, what it refuses, and that TLS takes its word."""

import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from protocols.errors import MillgateError
from security import ca
from security.at_rest import KeyFault
from security.ca import Authority, create_authority, load_authority
from security.certificate_request import certifies, life_of, make_private_key, request_for
from tests.certificates import own_authority

HOST = "127.0.0.1"
ID = "ab" * 16
DAY = 86_400


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    return create_authority(tmp_path / "ca.pem", tmp_path / "ca.key", "zj-brain")


def read(pem: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificates(pem)[0]


def keep(folder: Path, name: str, certificate: bytes) -> Path:
    path = folder / f"{name}.pem"
    path.write_bytes(certificate)
    return path


def client(folder: Path, authority: Authority, name: str = ID) -> ssl.SSLContext:
    key = folder / f"client-{name}.key"
    issued = authority.issue_client(make_private_key(key), name)
    context = ssl.create_default_context(cadata=authority.bundle.decode())
    context.load_cert_chain(keep(folder, f"client-{name}", issued.certificate), key)
    return context


def server(folder: Path, authority: Authority, *hosts: str) -> ssl.SSLContext:
    key = folder / "server.key"
    issued = authority.issue_server(make_private_key(key), hosts or (HOST, "localhost"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(keep(folder, "server", issued.certificate), key)
    context.load_verify_locations(cadata=authority.bundle.decode())
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def shake_hands(at_client: ssl.SSLContext, at_server: ssl.SSLContext) -> ssl.SSLObject:
    """Return the server's end of a connection; raises what either end refuses it for."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = at_client.wrap_bio(to_client, to_server, server_hostname=HOST)
    other = at_server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(6):
        for end in (one, other):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return other


def test_tls_takes_its_servers_and_clients_and_knows_the_client_by_its_id(
    tmp_path: Path, ours: Authority
) -> None:
    seen = shake_hands(client(tmp_path, ours), server(tmp_path, ours)).getpeercert()
    assert seen is not None
    assert seen["subject"] == ((("commonName", ID),),)


def test_a_client_cannot_pass_for_a_server_nor_a_server_for_a_client(
    tmp_path: Path, ours: Authority
) -> None:
    both = client(tmp_path, ours)
    as_server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    as_server.load_cert_chain(tmp_path / f"client-{ID}.pem", tmp_path / f"client-{ID}.key")
    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        shake_hands(both, as_server)
    real = server(tmp_path, ours)
    as_client = ssl.create_default_context(cadata=ours.bundle.decode())
    as_client.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        shake_hands(as_client, real)


def test_a_server_is_believed_for_its_own_names_only(tmp_path: Path, ours: Authority) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        shake_hands(client(tmp_path, ours), server(tmp_path, ours, "elsewhere.example"))


def test_another_authority_is_not_believed(tmp_path: Path, ours: Authority) -> None:
    (tmp_path / "other").mkdir()
    other = create_authority(tmp_path / "other/ca.pem", tmp_path / "other/ca.key", "zj-brain")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(client(tmp_path, ours), server(tmp_path / "other", other))


def test_a_revoked_certificate_no_longer_counts(tmp_path: Path, ours: Authority) -> None:
    good, bad = client(tmp_path, ours), client(tmp_path, ours, "cd" * 16)
    serial = life_of((tmp_path / f"client-{'cd' * 16}.pem").read_bytes()).serial
    at_server = server(tmp_path, ours)
    revoked = ours.revocation_list({serial: 1_770_000_000}, number=7)
    at_server.load_verify_locations(cafile=keep(tmp_path, "revoked", revoked))
    at_server.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    shake_hands(good, at_server)
    with pytest.raises(ssl.SSLCertVerificationError, match="revoked"):
        shake_hands(bad, at_server)


def test_a_client_certificate_says_an_opaque_id_and_nothing_else(
    tmp_path: Path, ours: Authority
) -> None:
    asked = make_private_key(tmp_path / "client.key")
    issued = ours.issue_client(asked, ID)
    made = read(issued.certificate)
    assert [(one.oid, one.value) for one in made.subject] == [(NameOID.COMMON_NAME, ID)]
    usage = made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    with pytest.raises(x509.ExtensionNotFound):
        made.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    life = life_of(issued.certificate)
    assert (life.name, life.serial, life.ends_s) == (ID, issued.serial, issued.ends_s)
    assert life.ends_s - life.starts_s == ca.CLIENT_DAYS * DAY + 3600
    assert life.starts_s < life.renew_s < life.ends_s
    assert certifies(issued.certificate, asked)
    assert not certifies(issued.certificate, make_private_key(tmp_path / "other.key"))


def test_what_a_request_asks_to_be_called_or_allowed_does_not_count(ours: Authority) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    greedy = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "brain")]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=3), critical=True)
        .sign(key, hashes.SHA256())
    )
    for encoding in (Encoding.PEM, Encoding.DER):
        made = read(ours.issue_client(greedy.public_bytes(encoding), ID).certificate)
        assert made.subject.rfc4514_string() == f"CN={ID}"
        assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_a_request_that_its_key_did_not_sign_is_refused(ours: Authority) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    der = bytearray(request.public_bytes(Encoding.DER))
    der[-1] ^= 1
    large = b"-----BEGIN" + bytes(ca.MOST_REQUEST)
    for wrong in (bytes(der), b"", b"-----BEGIN nothing", large):
        with pytest.raises(ca.RequestRefused):
            ours.issue_client(wrong, ID)
    for other in (ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP384R1())):
        how = None if isinstance(other, ed25519.Ed25519PrivateKey) else hashes.SHA256()
        builder = x509.CertificateSigningRequestBuilder().subject_name(name)
        with pytest.raises(ca.RequestRefused, match="P-256"):
            ours.issue_client(builder.sign(other, how).public_bytes(Encoding.PEM), ID)


def test_private_files_are_0600_or_refused_and_an_authority_is_never_replaced(
    tmp_path: Path, ours: Authority
) -> None:
    certificate, key = tmp_path / "ca.pem", tmp_path / "ca.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert load_authority(certificate, key).fingerprint == ours.fingerprint
    assert ours.fingerprint == read(ours.bundle).fingerprint(hashes.SHA256())
    with pytest.raises(KeyFault, match="there is a certificate authority already"):
        create_authority(certificate, key, "zj-brain")
    key.chmod(0o640)
    with pytest.raises(KeyFault, match="chmod 600"):
        load_authority(certificate, key)
    made = tmp_path / "client.key"
    first = make_private_key(made)
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    assert read_request(make_private_key(made)) == read_request(first)
    made.chmod(0o644)
    with pytest.raises(KeyFault, match="chmod 600"):
        request_for(made)


def read_request(pem: bytes) -> ec.EllipticCurvePublicKey:
    key = x509.load_pem_x509_csr(pem).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return key


def test_the_site_may_bring_its_own_authority_below_a_root(tmp_path: Path) -> None:
    chain, private = own_authority(tmp_path)
    site = load_authority(chain, private)
    shake_hands(client(tmp_path, site), server(tmp_path, site))
    with pytest.raises(KeyFault, match="do not belong together"):
        load_authority(chain, tmp_path / "root.key")
    leaf = site.issue_client(make_private_key(tmp_path / "leaf.key"), ID)
    with pytest.raises(KeyFault, match="may not issue"):
        load_authority(keep(tmp_path, "leaf", leaf.certificate), private)


def test_nothing_outlives_the_authority(tmp_path: Path) -> None:
    create_authority(tmp_path / "ca.pem", tmp_path / "ca.key", "zj-brain")
    late = int((datetime.now(UTC) + timedelta(days=ca.AUTHORITY_DAYS - 10)).timestamp())
    old = load_authority(tmp_path / "ca.pem", tmp_path / "ca.key", lambda: late * 10**9)
    issued = old.issue_client(make_private_key(tmp_path / "client.key"), ID)
    assert issued.ends_s == old.ends_s


def test_text_that_is_no_certificate_is_refused_in_plain_words(tmp_path: Path) -> None:
    with pytest.raises(MillgateError, match="not a certificate"):
        ca.fingerprint_of(b"-----BEGIN")
    with pytest.raises(MillgateError, match="not a certificate"):
        life_of(b"")
    with pytest.raises(KeyFault, match="cannot be read"):
        load_authority(tmp_path / "no.pem", tmp_path / "no.key")
