"""Certificate and key are judged in one step, with the sentence that the sysadmin needs."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PLAIN = serialization.NoEncryption()


def make(
    folder: Path,
    names: tuple[str, ...] = ("scratch.school.de",),
    days: float = 30,
    encryption: serialization.KeySerializationEncryption = PLAIN,
) -> tuple[str, str]:
    """A certificate for these names that lasts so many days, and its key; their paths."""
    folder.mkdir(exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "school")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime.now(UTC) - timedelta(days=90))
        .not_valid_after(datetime.now(UTC) + timedelta(days=days))
    )
    if names:
        alternatives = [
            x509.IPAddress(ipaddress.ip_address(name)) if name[0].isdigit() else x509.DNSName(name) for name in names
        ]
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    certificate = builder.sign(key, hashes.SHA256())
    (folder / "tls.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "tls.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    )
    return str(folder / "tls.crt"), str(folder / "tls.key")


@pytest.fixture
def judge(filters: dict[str, Callable[..., Any]]) -> Callable[..., str]:
    """The filter, for a host and seven days unless said otherwise."""
    return lambda crt, key, host="scratch.school.de", days=7: filters["certificate_problem"](crt, key, host, days)


@pytest.mark.parametrize("names", [("scratch.school.de",), ("other.de", "*.school.de")])
def test_good_one_is_no_problem(tmp_path: Path, judge: Callable[..., str], names: tuple[str, ...]) -> None:
    """By its name or by a wildcard."""
    assert judge(*make(tmp_path, names)) == ""


def test_address_is_a_name_too(tmp_path: Path, judge: Callable[..., str]) -> None:
    """A school without a name server types an address."""
    assert judge(*make(tmp_path, ("10.0.0.5",)), host="10.0.0.5") == ""


def test_missing_file_is_named(tmp_path: Path, judge: Callable[..., str]) -> None:
    """With the setting that names it, and that this machine is meant."""
    crt, key = make(tmp_path)
    assert judge("/nowhere/school.crt", key) == (
        "proxy_tls_certificate names /nowhere/school.crt, and there is no such file on this machine."
    )
    assert judge(crt, "/nowhere/school.key").startswith("proxy_tls_key names /nowhere/school.key, and there is no such")


def test_what_is_no_pem_is_refused(tmp_path: Path, judge: Callable[..., str]) -> None:
    """A DER file, say, or the two exchanged."""
    crt, key = make(tmp_path)
    assert judge(key, key) == f"{key} is not a certificate in PEM form."
    assert judge(crt, crt) == f"{crt} is not an unencrypted key in PEM form."


def test_key_with_a_password_is_refused(tmp_path: Path, judge: Callable[..., str]) -> None:
    """nginx has nobody to ask."""
    crt, key = make(tmp_path, encryption=serialization.BestAvailableEncryption(b"password"))
    assert judge(crt, key) == f"{key} is not an unencrypted key in PEM form."


def test_key_of_another_certificate_is_refused(tmp_path: Path, judge: Callable[..., str]) -> None:
    """nginx would not start with the two."""
    crt, _ = make(tmp_path / "a")
    _, key = make(tmp_path / "b")
    assert judge(crt, key) == "proxy_tls_key does not belong to proxy_tls_certificate."


@pytest.mark.parametrize("days", [-1, 6.9])
def test_one_that_ends_soon_is_refused(tmp_path: Path, judge: Callable[..., str], days: float) -> None:
    """Past, or within the days that renewing it takes."""
    said = judge(*make(tmp_path, days=days))
    assert said.startswith("The certificate ends on 20")
    assert said.endswith("which is past or less than 7 days away; get a new one first.")


@pytest.mark.parametrize("names", [("other.de",), ("*.de",), ("*.scratch.school.de",), ()])
def test_one_for_another_host_is_refused(tmp_path: Path, judge: Callable[..., str], names: tuple[str, ...]) -> None:
    """A wildcard stands for one label and no more."""
    said = judge(*make(tmp_path, names))
    assert said.startswith(f"The certificate is for {names[0] if names else 'no host'}")
    assert said.endswith(" and not for scratch.school.de, which scratch4school_url names.")
