"""Wrong passwords slowed down, per address that they come from."""

import ipaddress
import threading
import time

FREE_TRIES = 5
"""Wrong passwords before the first pause."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds; doubled with each further wrong password. A day then holds 1,440 guesses."""
FORGOTTEN_AFTER = 900.0
"""Seconds without a wrong password, after which an address is as any other."""
MOST_ADDRESSES = 10_000


class Brake:
    """Remembers from which addresses wrong passwords came, and how long each of them must wait."""

    def __init__(self) -> None:
        self._wrong: dict[str, tuple[int, float]] = {}
        """By address: wrong passwords, and the monotonic time of the last."""
        self._lock = threading.Lock()

    def pause_left(self, address: str) -> float:
        """Return for how many seconds no password of an address is looked at; 0 if it is now."""
        with self._lock:
            count, last = self._wrong.get(_network(address), (0, 0.0))
            if count < FREE_TRIES:
                return 0.0
            pause = min(FIRST_PAUSE * 2.0 ** min(count - FREE_TRIES, 30), LONGEST_PAUSE)
            return max(0.0, last + pause - time.monotonic())

    def note(self, address: str, *, right: bool) -> None:
        """Take whether a password of an address was right."""
        network, now = _network(address), time.monotonic()
        with self._lock:
            count, last = self._wrong.pop(network, (0, now))
            if right:
                return
            self._wrong[network] = ((0 if now - last > FORGOTTEN_AFTER else count) + 1, now)
            if len(self._wrong) > MOST_ADDRESSES:
                del self._wrong[next(iter(self._wrong))]  # the one whose last wrong password is the oldest


def _network(address: str) -> str:
    """Return what one sender can hardly change: an IPv4 address, or the first half of an IPv6 address."""
    try:
        known = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if known.version == 6 and known.ipv4_mapped is None:
        return str(ipaddress.ip_network(f"{known}/64", strict=False))
    return str(known)
