"""The lab's school: its people, their groups, and the application that may ask the identity provider about them."""

from __future__ import annotations

from pathlib import Path

from canaille.app import models
from canaille.backends import Backend

# The same for all people, and no secret: the provider listens only on a developer machine's loopback (README.md).
PASSWORD = Path(__file__).with_name("password.txt").read_text().strip()
# One address for each host that scripts/lab can start (MOST_HOSTS in lab/src/scratch4school_lab/hosts/plan.py).
PORTS = (8443, 8444, 8445, 8446, 8447, 8448)
SCOPES = ["openid", "profile", "uuid", "email", "groups"]

# Enough for a class of a hundred (scripts/classroom), in groups whose members share projects.
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
    """Write all people and groups to the identity provider's empty database."""
    for group, members in GROUPS.items():
        people = [make_person(user_name) for user_name in members]
        Backend.instance.save(models.Group(display_name=group, members=people))


def make_person(user_name: str) -> models.User:
    """Write one person to the database; a user name is the kind of person and a number, such as `pupil07`."""
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
    """Register Scratch4School as a client that needs no consent of the user (provider.py, TRUSTED_DOMAINS)."""
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
    # The audience becomes the ID token's `aud`; a client must be saved before it can be its own audience.
    client.audience = [client]
    Backend.instance.save(client)
