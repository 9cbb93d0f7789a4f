"""A socket to listen on, and whether others than this machine can reach it."""

from __future__ import annotations

import ipaddress
import socket
from contextlib import suppress

from tagmask.errors import ConfigError

__all__ = ["is_loopback", "listen", "shown_host"]

_WAITING = 64


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; who connects before anything answers waits.

    Args:
        host: Address to listen on.
        port: Its port; 0 chooses a free port.

    Raises:
        ConfigError: The address is none of this machine's, or the port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_WAITING)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"cannot listen on {host}:{port} ({reason}); choose another --port or --host"
        ) from None
    return listener


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def shown_host(host: str) -> str:
    """An address as it stands in front of a port, such that it can be opened.

    "All addresses" (0.0.0.0, ::) is none that could be: the one by which others reach this machine is.
    """
    with suppress(ValueError):
        if ipaddress.ip_address(host).is_unspecified:
            host = _outward(host) or socket.gethostname()
    return f"[{host}]" if ":" in host else host


def _outward(host: str) -> str | None:
    """The address that this machine's packets to others come from; None if it has no network."""
    families = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}  # nobody's; nothing is sent
    for family in (socket.AF_INET6, socket.AF_INET) if ":" in host else (socket.AF_INET,):
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((families[family], 9))
            return str(probe.getsockname()[0])
    return None
