"""Fetches images by URL, from public addresses only.

A service that fetches URLs can be made to read its own network ("server-side request forgery"). So every address of a
name is checked, and the connection goes to a checked address: a name server that answers differently the second time
changes nothing. Redirects are followed by hand, and checked again. Proxies of the environment are not used.
"""

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import SplitResult, urljoin, urlsplit

from jclip.plain import shown
from jclip.serve.refusals import Refusal, over_limit

_PORTS = {"http": 80, "https": 443}
_REDIRECTS = 3
_CHUNK = 1 << 16
_LONGEST = 2048  # characters of a URL

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_NOT_GLOBAL = (ipaddress.ip_network("100.64.0.0/10"), ipaddress.ip_network("64:ff9b:1::/48"))
"""Networks that are shared or local, which not every Python knows."""


def is_public(address: str) -> bool:
    """Returns True if an IP address belongs to the public internet; an IPv4 address inside an IPv6 one is checked too.

    >>> [is_public(each) for each in ("93.184.216.34", "10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1")]
    [True, False, False, False, False]
    """
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo and found.teredo[1])
        if found in _NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None and not is_public(str(inner)):
            return False
        if int(found) >> 32 == 0:  # ::127.0.0.1 is not in use, but some systems route it
            return False
    return found.is_global and not found.is_multicast and not any(found in network for network in _NOT_GLOBAL)


@dataclass(frozen=True)
class Fetcher:
    """Fetches URLs, within limits.

    Attributes:
      most: maximum number of bytes.
      seconds: maximum duration, redirects included.
    """

    most: int
    seconds: float = 10.0

    def __call__(self, url: str) -> bytes:
        """Returns the bytes at a URL. Raises Refusal if it is not public, cannot be read, or is too large or slow."""
        end = time.monotonic() + self.seconds
        for _ in range(_REDIRECTS + 1):
            parts = checked(url)
            try:
                found = self._get(parts, end)
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise self._failed(error, end) from None
            if isinstance(found, bytes):
                return found
            url = urljoin(url, found)
        raise Refusal(422, "url_failed", f"the URL has more than {_REDIRECTS} redirects")

    def _failed(self, error: Exception, end: float) -> Refusal:
        if isinstance(error, Refusal):
            return error
        if isinstance(error, TimeoutError) or time.monotonic() >= end:
            return Refusal(422, "url_timeout", f"the URL did not answer within {self.seconds:g} seconds")
        return Refusal(422, "url_failed", f"the URL cannot be read ({type(error).__name__})")

    def _get(self, parts: SplitResult, end: float) -> bytes | str:
        """Returns the bytes at an address, or the target of its redirect."""
        host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
        connection = http.client.HTTPConnection(host, port)
        connection.sock = opened = self._connected(host, port, parts.scheme == "https", end)
        # The socket's own limit begins again with each byte.
        alarm = threading.Timer(_left(end), _cut, (opened,))
        alarm.start()
        try:
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request("GET", path, headers={"User-Agent": "jclip", "Accept": "image/*"})
            with connection.getresponse() as response:
                if response.status in (301, 302, 303, 307, 308):
                    return response.getheader("Location") or ""
                if response.status != 200:
                    raise Refusal(422, "url_failed", f"the URL answered with status {response.status}")
                data = self._all(response)
                _left(end)  # raises if the alarm ended the stream
                if response.length:
                    raise http.client.IncompleteRead(data, response.length)
                return data
        finally:
            alarm.cancel()
            connection.close()
            opened.close()

    def _all(self, response: http.client.HTTPResponse) -> bytes:
        data = bytearray()
        while chunk := response.read1(_CHUNK):
            data += chunk
            if len(data) > self.most:
                raise over_limit("", f"the URL has more than {self.most} bytes", str(self.most), "--max-body")
        return bytes(data)

    def _connected(self, host: str, port: int, secure: bool, end: float) -> socket.socket:
        """Returns a connection to the first of a name's addresses that answers; all of them must be public."""
        addresses = dict.fromkeys(
            info[4][0] for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM) if info[4]
        )
        if not addresses or not all(self._allowed(str(address)) for address in addresses):
            raise Refusal(422, "url_not_public", "the URL's host does not have public addresses only")
        failure: OSError = OSError("no address")
        for address in addresses:
            try:
                plain = socket.create_connection((str(address), port), _left(end))
            except OSError as error:
                failure = error
                continue
            if not secure:
                return plain
            try:
                return ssl.create_default_context().wrap_socket(plain, server_hostname=host)
            except BaseException:
                plain.close()
                raise
        raise failure

    @staticmethod
    def _allowed(address: str) -> bool:
        return is_public(address)


def checked(url: str) -> SplitResult:
    """Returns the parts of a URL. Raises Refusal if it is not http or https on its usual port, or holds a password."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise Refusal(422, "url_invalid", f"{shown(url, 80)} is not a valid URL") from None
    if len(url) > _LONGEST or not url.isascii() or not url.isprintable() or " " in url:
        raise Refusal(422, "url_invalid", f"a URL has at most {_LONGEST} ASCII characters, without spaces")
    if parts.scheme not in _PORTS or not parts.hostname or parts.username is not None or parts.password is not None:
        raise Refusal(422, "url_invalid", "a URL must be http://HOST/… or https://HOST/…, without a user name")
    if port not in (None, _PORTS[parts.scheme]):
        raise Refusal(422, "url_not_public", f"a URL's port must be {_PORTS[parts.scheme]}")
    return parts


def _cut(opened: socket.socket) -> None:
    with suppress(OSError):
        opened.shutdown(socket.SHUT_RDWR)


def _left(end: float) -> float:
    """Returns the seconds until `end`. Raises TimeoutError if it has passed."""
    seconds = end - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds
