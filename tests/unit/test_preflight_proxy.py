"""Refusals of preflight for the role `proxy`: certificate and key, ports, and a front end that is not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from certificates import make
from cryptography.hazmat.primitives import serialization
from preflight import proxy

HOST = "scratch.school.de"


def refusal(crt: str, key: str, host: str = HOST, days: int = 7) -> str:
    """Return the messages about a certificate and its key."""
    return proxy.certificate_refusal(crt, key, host, days)


@pytest.mark.parametrize("names", [("scratch.school.de",), ("other.de", "*.school.de")])
def test_certificate_for_the_host_is_accepted(tmp_path: Path, names: tuple[str, ...]) -> None:
    """By its name or by a wildcard."""
    assert refusal(*make(tmp_path, names)) == ""


def test_certificate_for_an_ip_address_is_accepted(tmp_path: Path) -> None:
    """A school without a name server types an address."""
    assert refusal(*make(tmp_path, ("10.0.0.5",)), host="10.0.0.5") == ""


def test_missing_file_is_refused_with_its_setting(tmp_path: Path) -> None:
    """The message names the setting, and says that the control node is meant."""
    crt, key = make(tmp_path)
    assert refusal("/nowhere/school.crt", key) == (
        "proxy_tls_certificate names /nowhere/school.crt, and there is no such file on the control node. "
        "Correct the path."
    )
    assert refusal(crt, "/nowhere/school.key").startswith(
        "proxy_tls_key names /nowhere/school.key, and there is no such"
    )


def test_file_that_is_no_pem_is_refused(tmp_path: Path) -> None:
    """A DER file, say, or the two exchanged."""
    crt, key = make(tmp_path)
    assert (
        refusal(key, key)
        == f"proxy_tls_certificate names {key}, which is not a certificate in PEM form. Write another file."
    )
    assert (
        refusal(crt, crt)
        == f"proxy_tls_key names {crt}, which is not an unencrypted key in PEM form. Write another file."
    )


def test_encrypted_key_is_refused(tmp_path: Path) -> None:
    """nginx cannot ask for the password."""
    crt, key = make(tmp_path, encryption=serialization.BestAvailableEncryption(b"password"))
    assert (
        refusal(crt, key)
        == f"proxy_tls_key names {key}, which is not an unencrypted key in PEM form. Write another file."
    )


def test_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    """nginx would not start with the two."""
    crt, _ = make(tmp_path / "a")
    _, key = make(tmp_path / "b")
    assert refusal(crt, key).startswith(f"proxy_tls_key names {key}, which does not belong to the certificate {crt}.")


@pytest.mark.parametrize("days", [-1, 6.9])
def test_certificate_that_ends_soon_is_refused(tmp_path: Path, days: float) -> None:
    """Past, or within the days that renewing it takes."""
    crt, key = make(tmp_path, days=days)
    said = refusal(crt, key)
    assert said.startswith(f"The certificate {crt} ends on 20")
    assert said.endswith("which is past or less than 7 days away. Get a new certificate first.")


def test_certificate_is_judged_without_a_host(tmp_path: Path) -> None:
    """An address that is missing is refused as such, once; the rest of the certificate is still checked."""
    assert refusal(*make(tmp_path / "good"), host="") == ""
    crt, key = make(tmp_path / "past", days=-1)
    assert refusal(crt, key, host="").startswith(f"The certificate {crt} ends on 20")


@pytest.mark.parametrize("names", [("other.de",), ("*.de",), ("*.scratch.school.de",), ()])
def test_certificate_for_another_host_is_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    """A wildcard stands for one label and no more."""
    crt, key = make(tmp_path, names)
    said = refusal(crt, key)
    assert said.startswith(f"The certificate {crt} is for {names[0] if names else 'no host'}")
    assert " and not for scratch.school.de, which scratch4school_url names." in said


def settings(tmp_path: Path, **changed: Any) -> dict[str, Any]:
    """Settings that are right, with some changed."""
    crt, key = make(tmp_path, (HOST,))
    right = {
        "proxy_tls_certificate": crt,
        "proxy_tls_key": key,
        "proxy_url": f"https://{HOST}:8443",
        "proxy_certificate_days": 7,
        "proxy_https_port": 443,
        "proxy_http_port": 80,
        "proxy_frontend_directory": "",
        "inventory_hostname": "server",
    }
    return {**right, **changed}


def test_right_certificate_is_accepted(tmp_path: Path) -> None:
    """The host of the address is compared, without its port."""
    assert list(proxy.certificate(settings(tmp_path))) == []


def test_certificate_is_judged_by_the_settings(tmp_path: Path) -> None:
    """Days and address are those of the inventory."""
    (said,) = proxy.certificate(settings(tmp_path, proxy_certificate_days=31))
    assert "less than 31 days away" in said
    (said,) = proxy.certificate(settings(tmp_path, proxy_url="https://other.de"))
    assert "not for other.de" in said


@pytest.mark.parametrize("url", [None, "", "https://[", "???"])
def test_certificate_without_an_address_is_accepted(tmp_path: Path, url: object) -> None:
    """The role `app` refuses the address."""
    assert list(proxy.certificate(settings(tmp_path, proxy_url=url))) == []


@pytest.mark.parametrize("name", ["proxy_tls_certificate", "proxy_tls_key"])
@pytest.mark.parametrize("value", [None, ""])
def test_certificate_that_is_not_set_is_asked_for_once(tmp_path: Path, name: str, value: object) -> None:
    """With where to find it; nothing is said of the other file."""
    given = settings(tmp_path, **{name: value})
    said = [message for rule in proxy.RULES.settings_rules for message in rule(given)]
    assert said == [
        f"{name} is not set for server. Set it in the inventory's group_vars/scratch4school/: "
        f"{proxy.RULES.required[name]}."
    ]


def test_equal_ports_are_refused(tmp_path: Path) -> None:
    """nginx could not start."""
    assert list(proxy.ports(settings(tmp_path))) == []
    assert list(proxy.ports(settings(tmp_path, proxy_http_port=443))) == [
        "proxy_https_port and proxy_http_port are both 443; choose two different ports."
    ]


def test_front_end_without_its_page_is_refused(tmp_path: Path) -> None:
    """The survey looks for the page where a folder is set, and only there."""
    given = settings(tmp_path, proxy_frontend_directory="/srv/front")
    assert proxy.questions(given) == {"files": ["/srv/front/index.html"]}
    assert list(proxy.frontend(given, {"files": {"/srv/front/index.html": True}})) == []
    (said,) = proxy.frontend(given, {"files": {"/srv/front/index.html": False}})
    assert said.startswith("proxy_frontend_directory is /srv/front, and there is no index.html in it on server.")
    assert proxy.questions(settings(tmp_path)) == {"files": []}
    assert list(proxy.frontend(settings(tmp_path), {"files": {}})) == []
