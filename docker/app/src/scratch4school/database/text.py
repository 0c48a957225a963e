"""Text that both engines can store."""


def is_storable(text: str) -> bool:
    """Whether a database can store `text`: it has no NUL and no half of a surrogate pair."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)
