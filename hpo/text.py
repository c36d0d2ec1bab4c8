"""Text from files and stores, before it is shown or written into other text: no character of it acts by itself."""


def printable(text: str) -> str:
    r"""Return a text with every character that is not printed as its escape (`\x1b`), but for ends of lines and tabs.

    Escaped are control characters, which terminals obey, and those that turn the direction of what follows.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def one_line(text: str) -> str:
    """Return a text in one line, printable; runs of white space become one space."""
    return printable(" ".join(text.split()))


def in_docstring(text: str) -> str:
    """Return a text in one line, as it may stand in a docstring in three double quotes without ending it."""
    return one_line(text).replace("\\", "\\\\").replace('"', '\\"')
