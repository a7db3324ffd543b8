"""Files over https: bounded, resumed where they broke off, never redirected elsewhere.

Plain http is for loopback addresses only. It knows nothing of models.
"""

import fcntl
import hashlib
import ipaddress
import json
import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import (
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    ProxyHandler,
    Request,
    build_opener,
)

from tqdm import tqdm

TIMEOUT_S = 30  # of silence
HEADERS_S = 60  # until all headers of an answer are there, however they drip
RATE, RATE_S = 1000, 60  # bytes per second, over so many of them: less is given up as cut off
CAP = 2**30  # bytes of a file, unless told; the largest published weights have a quarter of that
BLOCK = 2**20
AGENT = "co3d (companion of arXiv:2106.00050)"


class UnreachableError(ConnectionError):
    """No answer at all."""


class _CutError(ConnectionError):
    """An answer that broke off."""


class _Note(NamedTuple):
    """What lies beside a part: whose bytes they are, and of how many, if that is known."""

    validator: str = ""
    total: int | None = None


class _Answer(NamedTuple):
    """The bytes `start` to `end` of `total`; None is not known."""

    response: HTTPResponse
    start: int
    end: int | None
    total: int | None


def receive(url: str, part: Path, mebibytes: float | None = None, cap: int | None = None) -> str:
    """Brings a file, or what is missing of it, into `part`; returns the sha256 of the whole.

    Beside `part` lies `part`.json with the validator and the size of what it holds; the caller
    renames `part`. Without a Content-Length, nothing tells here whether a file is whole.

    Args:
        mebibytes: the size that is known of the file.
        cap: bytes that it may have at most, by default CAP.

    Raises:
        UnreachableError: if nobody answers.
        ConnectionError: if the answer is an error, or was cut off: then `part` stays.
        ValueError: if the address, a redirection or the size is not acceptable.
        OSError: if the disk is too full.
    """
    cap = CAP if cap is None else cap
    response, have, end, total = _ask(url, part)
    with response:
        validator = _validator(response)
        _check_size(url, total, mebibytes, cap)
        _check_room(part, 0 if total is None else total - have, anew=not have)
        if not have:
            part.write_bytes(b"")
        note = {"url": url, "validator": validator, "total": total}
        _note(part).write_text(json.dumps(note), "utf-8")
        with part.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        limit, reason = cap if end is None else end, ""
        with part.open("ab") as file, _bar(part.stem, have, total) as shown:
            try:
                for block in _blocks(response, None if end is None else end - have):
                    digest.update(block)
                    have += file.write(block)
                    shown.update(len(block))
                    if have > limit:
                        break
            except _CutError as error:
                reason = str(error)
    if have > limit:
        forget(part)
        raise ValueError(f"{url} sends more than {limit:,} bytes: refused")
    if reason or have < (total or 0):
        how = "resumes" if validator else "starts anew"
        of = f"{have:,} of {total:,} bytes" if total else f"{have:,} bytes"
        of += f" ({reason})" if reason else ""
        raise ConnectionError(f"{url} was cut off at {of}: run the command again, it {how}")
    return digest.hexdigest()


def size(url: str, mebibytes: float | None = None, cap: int | None = None) -> int | None:
    """Bytes behind an address, None if it does not say; by HEAD, else by a GET of one byte.

    Args:
        mebibytes: the size that is known of the file.
        cap: bytes that it may have at most, by default CAP.

    Raises:
        ConnectionError, ValueError: as `receive`.
    """
    try:
        with _open(url, method="HEAD") as response:
            length = response.headers.get("Content-Length", "")
    except HTTPError as error:
        error.close()
        with _told(url), _open(url, {"Range": "bytes=0-0"}) as response:
            whole = response.headers.get("Content-Range", "").rpartition("/")[2]
            length = whole or response.headers.get("Content-Length", "")
    total = int(length) if re.fullmatch("[0-9]{1,18}", length) else None
    _check_size(url, total, mebibytes, CAP if cap is None else cap)
    return total


def forget(part: Path) -> None:
    """Removes what is left of a download."""
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """One process at a time brings `path`; others wait."""
    with path.with_name(f".{path.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _ask(url: str, part: Path) -> _Answer:
    """What comes of the file: the rest of it, or all if the rest cannot be had."""
    have = part.stat().st_size if part.is_file() else 0
    note = _noted(part, url)
    with _told(url):
        if have and note.validator:
            try:
                response = _open(url, {"Range": f"bytes={have}-", "If-Range": note.validator})
            except HTTPError as error:
                if error.code != 416:  # there is nothing behind these bytes
                    raise
                error.close()
            else:
                if response.status == 200:
                    return _Answer(response, 0, response.length, response.length)
                if rest := _rest(response, have, note):
                    return rest
                response.close()
        response = _open(url)
    if response.status != 200:
        response.close()
        raise ConnectionError(f"{url} answers {response.status}, not the file")
    return _Answer(response, 0, response.length, response.length)


def _rest(response: HTTPResponse, have: int, note: _Note) -> _Answer | None:
    """The answer, if it goes on behind `have` bytes of the same file."""
    given = response.headers.get("Content-Range", "")
    found = re.fullmatch(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})", given)
    start, last, total = map(int, found.groups()) if found else (0, 0, 0)
    same = _validator(response) == note.validator and note.total in (None, total)
    if not same or start != have or not start <= last < total:
        return None
    return _Answer(response, start, last + 1, total)


def _blocks(response: HTTPResponse, left: int | None) -> Iterator[bytes]:
    """What arrives, as it does, and what comes beyond the `left` bytes that were declared."""
    response.length = None  # else http.client hides what comes beyond
    since, came = time.monotonic(), 0
    while True:
        over = left is not None and left <= 0
        try:
            block = response.read1(1 if over else min(BLOCK, left or BLOCK))
        except (OSError, HTTPException) as error:
            if over:  # a server that does not close the line, as it was asked to
                return
            raise _CutError(_reason(error)) from None
        if not block:
            return
        left, came = None if left is None else left - len(block), came + len(block)
        yield block
        if (now := time.monotonic()) - since >= RATE_S:
            if came < RATE * (now - since) and left != 0:
                raise _CutError(f"less than {RATE:,} bytes a second came")
            since, came = now, 0


def _bar(name: str, have: int, total: int | None) -> tqdm:
    """Bytes, in a terminal only."""
    scale = {"unit": "B", "unit_scale": True, "unit_divisor": 1024}
    return tqdm(desc=name, total=total, initial=have, disable=None, **scale)


def _check_size(url: str, total: int | None, mebibytes: float | None, cap: int) -> None:
    if (total or 0) > cap:
        raise ValueError(f"{url} has {total:,} bytes, more than {cap:,}: refused")
    if total and mebibytes and abs(total / 2**20 - mebibytes) > 0.01:
        raise ValueError(f"{url} has {total / 2**20:.3f} MiB instead of {mebibytes}: refused")


def _check_room(part: Path, left: int, anew: bool) -> None:
    free = shutil.disk_usage(part.parent).free
    free += part.stat().st_size if anew and part.is_file() else 0  # it will be overwritten
    if left > free:
        raise OSError(f"{part.stem} needs {left:,} bytes more, the disk has {free:,} free")


def _open(url: str, headers: dict[str, str] | None = None, method: str = "GET") -> HTTPResponse:
    """Opens an address; an HTTPError passes, everything else is a sentence."""
    _permit(url)
    direct = [ProxyHandler({})] if _loopback(url) else []
    request = Request(url, headers={"User-Agent": AGENT, **(headers or {})}, method=method)
    try:
        opener = build_opener(_Http, _Https, _Redirects, *direct)
        return opener.open(request, timeout=TIMEOUT_S)
    except HTTPError:
        raise
    except (URLError, OSError, HTTPException) as error:
        host = urlsplit(url).netloc
        raise UnreachableError(f"cannot reach {host} ({_reason(error)})") from None


@contextmanager
def _told(url: str) -> Iterator[None]:
    """An HTTPError as a sentence."""
    try:
        yield
    except HTTPError as error:
        error.close()
        reason = " ".join(str(error.reason).split())
        raise ConnectionError(f"{url} answers {error.code} {reason}") from None


class _Bounded(HTTPConnection):
    """A connection whose timeout bounds one read, and HEADERS_S all reads of the headers."""

    def getresponse(self) -> HTTPResponse:
        line, late = self.sock, threading.Event()

        def give_up() -> None:
            late.set()
            with suppress(OSError):  # it may be closed by now
                # Not that of a TLS socket, which is not made for another thread's reads.
                socket.socket.shutdown(line, socket.SHUT_RDWR)

        timer = threading.Timer(HEADERS_S, give_up)
        timer.daemon = True
        timer.start()
        try:
            response = super().getresponse()
        except (OSError, HTTPException):
            if late.is_set():
                raise _late() from None
            raise
        finally:
            timer.cancel()
        if late.is_set():  # http.client takes headers that broke off for whole ones
            response.close()
            raise _late()
        return response


def _late() -> TimeoutError:
    return TimeoutError(f"its headers took more than {HEADERS_S} s")


class _BoundedTls(_Bounded, HTTPSConnection):
    pass


class _Http(HTTPHandler):
    def do_open(self, _, request: Request, **options) -> HTTPResponse:
        return super().do_open(_Bounded, request, **options)


class _Https(HTTPSHandler):
    def do_open(self, _, request: Request, **options) -> HTTPResponse:
        return super().do_open(_BoundedTls, request, **options)


class _Redirects(HTTPRedirectHandler):
    def redirect_request(self, request, fp, code, message, headers, url):
        fp.close()  # else its body is read, however long
        _permit(url, request.full_url)
        return super().redirect_request(request, fp, code, message, headers, url)


def _permit(url: str, before: str = "") -> None:
    """Refuses all but https, and http on this machine unless it comes `before` by https."""
    scheme = urlsplit(url).scheme
    if scheme != "https" and (scheme != "http" or not _loopback(url) or before[:6] == "https:"):
        come = f"{before} leads to {url}" if before else url
        raise ValueError(f"{come}: only https is fetched")


def _loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", error)
    return getattr(reason, "strerror", None) or str(reason) or type(reason).__name__


def _validator(response: HTTPResponse) -> str:
    """What If-Range takes: a strong ETag, else the date."""
    etag = response.headers.get("ETag", "")
    weak = not etag or etag.startswith("W/")
    return response.headers.get("Last-Modified", "") if weak else etag


def _note(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _noted(part: Path, url: str) -> _Note:
    """What is known of what `part` holds, nothing if it is not of this address."""
    try:
        note = json.loads(_note(part).read_text("utf-8"))
        return _Note(str(note["validator"]), note.get("total")) if note["url"] == url else _Note()
    except (OSError, ValueError, TypeError, KeyError):
        return _Note()
