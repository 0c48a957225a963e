"""Reads the expiry date of a certificate. Python's standard library has no public function for that.

RFC 5280, 4.1 defines the structure, and ITU-T X.690 its encoding, DER.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from datetime import datetime

from .times import UTC

SEQUENCE, VERSION = 0x30, 0xA0
UTC_TIME, GENERALIZED_TIME = 0x17, 0x18
# In a certificate's body, after its version: serial number, signature, issuer, validity.
VALIDITY = 3

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)


def valid_until(pem: str) -> datetime:
    """When the first certificate in a PEM file expires, in UTC.

    :raises ValueError: when the text has no certificate, or a damaged one.
    """
    found = _PEM.search(pem)
    if not found:
        raise ValueError("there is no certificate in PEM form")
    try:
        certificate = _first(base64.b64decode(found[1]), SEQUENCE)
        fields = list(_elements(_first(certificate, SEQUENCE)))
        body = [content for tag, content in fields if tag != VERSION]
        _, (tag, not_after) = _elements(body[VALIDITY])
        return _moment(tag, not_after.decode("ascii"))
    except (IndexError, ValueError) as problem:
        raise ValueError(f"it is no certificate ({problem})") from problem


def days_left(pem: str) -> int:
    """Whole days until the first certificate in a PEM file expires; negative when it has expired."""
    return (valid_until(pem) - datetime.now(UTC)).days


def _first(data: bytes, expected: int) -> bytes:
    tag, content = next(_elements(data))
    if tag != expected:
        raise ValueError(f"tag {tag:#x} instead of {expected:#x}")
    return content


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and content of each DER element in the data."""
    position = 0
    while position < len(data):
        tag, length = data[position], data[position + 1]
        position += 2
        if length & 0x80:
            size = length & 0x7F
            length = int.from_bytes(data[position : position + size], "big")
            position += size
        content = data[position : position + length]
        if len(content) < length:
            raise ValueError("it is cut off")
        yield tag, content
        position += length


def _moment(tag: int, text: str) -> datetime:
    if tag == UTC_TIME:
        # Years of two digits: 50 to 99 mean 1950 to 1999 (RFC 5280, 4.1.2.5.1).
        text = f"{'19' if text >= '50' else '20'}{text}"
    elif tag != GENERALIZED_TIME:
        raise ValueError(f"tag {tag:#x} is no time")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
