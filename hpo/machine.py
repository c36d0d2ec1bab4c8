"""This machine: how much memory it has."""

import os


def memory() -> int:
    """Return the bytes of this machine's memory; those of a small machine where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 8 * 2**30
