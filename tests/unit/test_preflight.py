"""Certificate and key, the provider, hours, commands and SSH's messages are judged, each in one sentence."""

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


@pytest.mark.parametrize("host", [None, ""])
def test_one_for_no_host_is_judged_without_it(tmp_path: Path, judge: Callable[..., str], host: str | None) -> None:
    """An address that is missing is refused as such, once; the rest of the certificate is judged all the same."""
    assert judge(*make(tmp_path / "good"), host=host) == ""
    assert judge(*make(tmp_path / "past", days=-1), host=host).startswith("The certificate ends on 20")


@pytest.mark.parametrize("names", [("other.de",), ("*.de",), ("*.scratch.school.de",), ()])
def test_one_for_another_host_is_refused(tmp_path: Path, judge: Callable[..., str], names: tuple[str, ...]) -> None:
    """A wildcard stands for one label and no more."""
    said = judge(*make(tmp_path, names))
    assert said.startswith(f"The certificate is for {names[0] if names else 'no host'}")
    assert said.endswith(" and not for scratch.school.de, which scratch4school_url names.")


# ---- what the identity provider answered

JWKS = "https://my-school.example/jwk"
TOKEN = "https://my-school.example/token"
URLS = {"app_oidc_jwks_url": JWKS, "app_oidc_token_url": TOKEN}


def answer(status: int = 200, keys: int = 0, problem: str = "") -> dict[str, Any]:
    """What host_survey says of one address."""
    return {"status": status, "keys": keys, "problem": problem}


@pytest.mark.parametrize(
    "answers",
    [
        {JWKS: answer(keys=1), TOKEN: answer(405)},
        {JWKS: answer(keys=2), TOKEN: answer(400)},
        {JWKS: answer(0, problem="timed out"), TOKEN: answer(0, problem="timed out")},
        {JWKS: answer(500), TOKEN: answer(503)},
        {},
    ],
    ids=["right", "right, and wants a form", "silent", "in trouble", "not asked"],
)
def test_provider_that_may_be_right_is_no_problem(
    filters: dict[str, Callable[..., Any]], answers: dict[str, Any]
) -> None:
    """A token address refuses a GET by its nature; a provider that is silent or ill says nothing of its address."""
    assert filters["provider_problems"](answers, URLS) == []


@pytest.mark.parametrize("status", [404, 410])
@pytest.mark.parametrize("setting", list(URLS))
def test_provider_address_that_does_not_exist_is_refused(
    filters: dict[str, Callable[..., Any]], setting: str, status: int
) -> None:
    """With the setting, its value and what the provider said, once."""
    answers = {JWKS: answer(keys=1), TOKEN: answer(405), URLS[setting]: answer(status)}
    (said,) = filters["provider_problems"](answers, URLS)
    assert said.startswith(
        f"{setting} is {URLS[setting]}, and the identity provider answers {status}: there is no such"
    )
    assert "copy the address from the provider" in said


def test_provider_address_of_keys_without_a_key_is_refused(filters: dict[str, Callable[..., Any]]) -> None:
    """Under the address of a login page there are no keys, and every login would fail."""
    answers = {JWKS: answer(200), TOKEN: answer(400)}
    (said,) = filters["provider_problems"](answers, URLS)
    assert said.startswith(f"app_oidc_jwks_url is {JWKS}, and the identity provider answers 200 without any key.")


@pytest.mark.parametrize("status", [401, 403, 429])
def test_provider_that_turns_the_question_down_is_a_warning(
    filters: dict[str, Callable[..., Any]], status: int
) -> None:
    """A firewall may refuse what the application is answered; that tells nothing of the address."""
    answers = {JWKS: answer(status), TOKEN: answer(status)}
    assert filters["provider_problems"](answers, URLS) == []
    (said,) = filters["provider_silence"](answers, [TOKEN, JWKS], "server", JWKS)
    assert said.startswith(f"{JWKS} answers {status};")


def test_provider_silence_is_said_once_per_address(filters: dict[str, Callable[..., Any]]) -> None:
    """One that is not reached is said with the cause, one in trouble with its status, one that answers is not said."""
    answers = {JWKS: answer(0, problem="timed out"), TOKEN: answer(502)}
    said = filters["provider_silence"](answers, [JWKS, TOKEN, JWKS], "server")
    assert said == [
        f"server does not reach {JWKS} (timed out); logins fail until it does.",
        f"{TOKEN} answers 502; logins fail until the identity provider works again.",
    ]
    assert filters["provider_silence"]({JWKS: answer(404)}, [JWKS, TOKEN], "server") == []


# ---- hours, commands, and a way in


@pytest.mark.parametrize("windows", [[], ["Mon-Fri 16:00-22:00", "Sat,Sun 00:00-24:00"], ("Fri 22:00-04:00",)])
def test_change_windows_that_can_be_read_are_no_error(filters: dict[str, Callable[..., Any]], windows: object) -> None:
    """At whatever time, also where it would not be now."""
    assert filters["change_window_error"](windows) == ""


@pytest.mark.parametrize(
    ("windows", "said"),
    [
        (
            ["Mon-Fri 16:00-22:00", "Mon-Fry 16:00-22:00"],
            "change_windows has “Mon-Fry 16:00-22:00”, which is no window;",
        ),
        ([16], "change_windows has “16”, which is no window;"),
        ("Mon-Fri 16:00-22:00", "change_windows is 'Mon-Fri 16:00-22:00'; it must be a list"),
        (None, "change_windows is None; it must be a list"),
        (True, "change_windows is True; it must be a list"),
    ],
)
def test_change_windows_that_cannot_be_read_are_an_error(
    filters: dict[str, Callable[..., Any]], windows: object, said: str
) -> None:
    """A misspelt window is found on the day that it is written, whatever the hour."""
    assert filters["change_window_error"](windows).startswith(said)


@pytest.mark.parametrize(
    ("command", "programs"),
    [
        ("mail -s Scratch4School admin@my-school.example", ["mail"]),
        ("/usr/local/bin/tell", ["/usr/local/bin/tell"]),
        ("cat | mail root; logger told & wait", ["cat", "mail", "logger", "wait"]),
        ("command -v mail >/dev/null && mail root || logger told", []),
        ("case $X in a) mail root;; esac", []),
        ("(cat; echo end) | mail root | cat", ["cat", "echo", "mail"]),
        ("TO=admin URL='https://x' curl -d @- https://ntfy.example", ["curl"]),
        ("FROM=me", []),
        ("echo 'a | b; c' | mail", ["echo", "mail"]),
        ('mail -s "on $(hostname)" root', ["mail"]),
        ("mail -s $(hostname) root", ["mail", "hostname"]),
        ("$TELL now", []),
        ("${TELL} now | cat", ["cat"]),
        ("`which mail` root", []),
        ("~/bin/tell", []),
        ("/opt/tell* now", []),
        ("mail root 2>&1 | tee log", ["mail", "tee"]),
        ("mail root > /dev/null 2>&1", ["mail"]),
        ("mail root >&2; true", ["mail", "true"]),
        ("sleep $((2+2)); mail", ["sleep", "mail"]),
        ("[ -s /etc/to ] && mail", []),
        ("my-\\ tool x", ["my- tool"]),
        ("mail 'root", []),
        ('mail "root', []),
        ("mail \\", []),
        ("", []),
        ("   ", []),
        (None, []),
    ],
    ids=str,
)
def test_command_programs_are_what_a_shell_would_start(
    filters: dict[str, Callable[..., Any]], command: object, programs: list[str]
) -> None:
    """The first word of each part, once; what the shell works out, or cannot read, is not looked for."""
    assert filters["command_programs"](command) == programs


SSH_MESSAGES = [
    ("@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.", "another host key than"),
    ("Failed to connect: Host key verification failed.", "does not know the server's host key"),
    ("root@server: Permission denied (publickey,password).", "does not accept your SSH key"),
    ("Missing sudo password", "for a password"),
    ("sudo: a password is required", "for a password"),
    ("ssh: Could not resolve hostname server: Name or service not known", "There is no such name"),
    ("ssh: connect to host server port 22: Connection refused", "No SSH server answers"),
    ("ssh: connect to host server port 22: Connection timed out", "No answer comes"),
    ("ssh: connect to host server port 22: No route to host", "No answer comes"),
]


@pytest.mark.parametrize(("message", "said"), SSH_MESSAGES, ids=[said for _, said in SSH_MESSAGES])
def test_ssh_problem_says_what_each_message_means(
    filters: dict[str, Callable[..., Any]], message: str, said: str
) -> None:
    """Whatever the case of its letters and wherever its lines break, exactly one advice is given."""
    for spelled in (message, message.upper(), message.replace(" ", "\n")):
        advice = filters["ssh_problem"](spelled, "root", "server")
        assert said in advice
        assert advice.endswith(".")
        assert [other for _, other in SSH_MESSAGES if other in advice and other != said] == []


@pytest.mark.parametrize(
    ("message", "port", "typed"),
    [
        ("REMOTE HOST IDENTIFICATION HAS CHANGED", 22, ["`ssh-keygen -R server`", "`ssh anna@server`"]),
        (
            "REMOTE HOST IDENTIFICATION HAS CHANGED",
            "2222",
            ["`ssh-keygen -R '[server]:2222'`", "`ssh -p 2222 anna@server`"],
        ),
        ("Host key verification failed", 2222, ["`ssh -p 2222 anna@server`"]),
        ("Permission denied", 2222, ["`ssh-copy-id -p 2222 anna@server`", "ansible_user"]),
        ("Permission denied", None, ["`ssh-copy-id anna@server`"]),
        ("sudo: a password is required", 22, ["`anna ALL=(ALL) NOPASSWD: ALL`", "/etc/sudoers.d"]),
        ("Could not resolve hostname", 22, ["ansible_host"]),
        ("Connection refused", 2222, ["ansible_host", "ansible_port"]),
        ("timed out", 22, ["ansible_host"]),
        ("something else", 2222, ["`ssh -p 2222 anna@server`", "ansible_host, ansible_port or ansible_user"]),
        ("", "", ["`ssh anna@server`"]),
        (None, None, ["`ssh anna@server`"]),
    ],
)
def test_ssh_problem_says_what_to_type(
    filters: dict[str, Callable[..., Any]], message: str | None, port: object, typed: list[str]
) -> None:
    """The command line has the user, the address and the port of the inventory, or names the setting to correct."""
    advice = filters["ssh_problem"](message, "anna", "server", port)
    for part in typed:
        assert part in advice


def test_ssh_problem_without_a_user_names_none(filters: dict[str, Callable[..., Any]]) -> None:
    """Where the inventory names no user, SSH's own is meant."""
    assert "`ssh server`" in filters["ssh_problem"]("Host key verification failed", "", "server")
    assert "<user> ALL=(ALL)" in filters["ssh_problem"]("Missing sudo password", "", "server")
