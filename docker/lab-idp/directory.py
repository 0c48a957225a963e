"""The school of the lab: who is in it, in which groups, and which application may ask the provider about them."""

from __future__ import annotations

from pathlib import Path

from canaille.app import models
from canaille.backends import Backend

# Everybody's, and no secret: the provider listens on the loopback of a developer's machine alone (README.md).
PASSWORD = Path(__file__).with_name("password.txt").read_text().strip()
# One address for each host that scripts/lab can start (scripts/_lab/plan.py, MOST_HOSTS).
PORTS = (8443, 8444, 8445, 8446)
SCOPES = ["openid", "profile", "uuid", "email", "groups"]

# Enough for scripts/classroom to be a hundred of them, each in a class with classmates to share with.
PUPILS = [f"pupil{number:02}" for number in range(1, 121)]
GROUPS = {
    "klasse.5a": PUPILS[:15],
    "klasse.5b": PUPILS[15:30],
    "klasse.6a": PUPILS[30:60],
    "klasse.6b": PUPILS[60:90],
    "klasse.7a": PUPILS[90:],
    "lehrer": ["lehrer1", "lehrer2"],
    "admins": ["admin1"],
}


def fill() -> None:
    """Write all people and groups to the provider's empty database."""
    for group, members in GROUPS.items():
        people = [make_person(user_name) for user_name in members]
        Backend.instance.save(models.Group(display_name=group, members=people))


def make_person(user_name: str) -> models.User:
    """Write one person to the database; the name tells the kind of person, the number which one."""
    kind, number = user_name.rstrip("0123456789"), user_name.lstrip("abcdefghijklmnopqrstuvwxyz")
    person = models.User(
        user_name=user_name,
        # Canaille's claim preferred_username is the display name; at IServ it is the account's name.
        display_name=user_name,
        given_name=kind.capitalize(),
        family_name=number,
        formatted_name=f"{kind.capitalize()} {number}",
        emails=[f"{user_name}@schule.example"],
        password=PASSWORD,
    )
    Backend.instance.save(person)
    return person


def register_client(client_id: str, client_secret: str) -> None:
    """Make Scratch4School known as a client that nobody is asked to consent to (provider.py, TRUSTED_DOMAINS)."""
    client = models.Client(
        client_id=client_id,
        client_secret=client_secret,
        client_name="Scratch4School",
        client_uri=f"https://localhost:{PORTS[0]}",
        redirect_uris=[f"https://localhost:{port}/backend/authorize" for port in PORTS],
        token_endpoint_auth_method="client_secret_post",
        grant_types=["authorization_code", "refresh_token"],
        response_types=["code"],
        scope=SCOPES,
        id_token_signed_response_alg="RS256",
    )
    Backend.instance.save(client)
    # The audience is what the ID token's `aud` is made of; a client can only name itself once it exists.
    client.audience = [client]
    Backend.instance.save(client)
