"""The lab's certificate authority and the certificates it signs, made once by openssl."""

from __future__ import annotations

from pathlib import Path

from ..checkout import STATE
from ..shell import run

CA_CERTIFICATE = STATE / "ca.crt"
CA_KEY = STATE / "ca.key"
TLS = STATE / "tls"
# A certificate with fewer days left is replaced, so that an old lab starts without a TLS error.
LEAST_SECONDS_LEFT = 30 * 24 * 3600


def is_fresh(certificate: Path) -> bool:
    if not certificate.exists():
        return False
    check = ("openssl", "x509", "-in", str(certificate), "-noout", "-checkend", str(LEAST_SECONDS_LEFT))
    return run(*check, why="", check=False).returncode == 0


def make_authority() -> bool:
    """Make the lab's authority unless there is one; returns whether it was made."""
    if is_fresh(CA_CERTIFICATE):
        return False
    run(
        *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650", "-sha256"),
        *("-subj", "/CN=Scratch4School lab CA", "-keyout", str(CA_KEY), "-out", str(CA_CERTIFICATE)),
        *("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        why="The lab's certificate authority could not be made",
    )
    CA_KEY.chmod(0o600)
    return True


def extensions(names: list[str]) -> str:
    """The extensions of a server certificate for host names and IPv4 addresses."""
    alternatives = ",".join(("IP:" if name.replace(".", "").isdigit() else "DNS:") + name for name in names)
    return (
        "basicConstraints=critical,CA:FALSE\n"
        "keyUsage=critical,digitalSignature,keyEncipherment\n"
        "extendedKeyUsage=serverAuth\n"
        f"subjectAltName={alternatives}\n"
    )


def make_certificate(name: str, address: str, authority_is_new: bool) -> bool:
    """Make `.lab/tls/NAME.crt` and `.key` for a host, valid for localhost too; returns whether it was made."""
    certificate, key = TLS / f"{name}.crt", TLS / f"{name}.key"
    if is_fresh(certificate) and key.exists() and not authority_is_new:
        return False
    TLS.mkdir(exist_ok=True)
    request, extension_file = TLS / f"{name}.csr", TLS / f"{name}.ext"
    extension_file.write_text(extensions([name, "localhost", address, "127.0.0.1"]))
    why = f"The certificate of {name} could not be made"
    run(
        *("openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}"),
        *("-keyout", str(key), "-out", str(request)),
        why=why,
    )
    run(
        *("openssl", "x509", "-req", "-sha256", "-days", "397", "-in", str(request), "-extfile", str(extension_file)),
        *("-CA", str(CA_CERTIFICATE), "-CAkey", str(CA_KEY), "-CAcreateserial", "-out", str(certificate)),
        why=why,
    )
    key.chmod(0o600)
    request.unlink()
    extension_file.unlink()
    return True
