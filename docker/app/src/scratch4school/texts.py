"""What a text column can hold."""


def is_storable(text: str) -> bool:
    """Whether a database takes `text`: no NUL and no half of a surrogate pair, neither of which a keyboard types."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)
