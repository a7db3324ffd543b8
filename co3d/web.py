"""Files over https: resumed where they broke off, and renamed once they are whole.

Plain http is for this machine only.
"""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from tqdm import tqdm
from urllib3 import Retry

TIMEOUT_S = 30  # of silence
RETRY = Retry(
    3, backoff_factor=0.5, status_forcelist=(429, 500, 502, 503, 504), raise_on_status=False
)
BLOCK = 2**16
HEADERS = {
    "User-Agent": "co3d (companion of arXiv:2106.00050)",
    "Accept-Encoding": "identity",  # bytes as they are stored, or Range means others
}


class UnreachableError(ConnectionError):
    """No answer at all."""


class _CutError(ConnectionError):
    """An answer that broke off."""


def download(
    url: str,
    path: Path,
    *,
    mebibytes: float | None = None,
    check: Callable[[Path], None] = lambda part: None,
) -> None:
    """Brings a file to `path`. Until it is whole it is `path`.part, which a later call completes.

    Args:
        mebibytes: the size that is known of the file.
        check: raises ValueError for a whole file that is not the expected one.

    Raises:
        UnreachableError: if nobody answers.
        ConnectionError: if the answer is an error, or was cut off: then the part stays.
        ValueError: if the address, a redirection, the size or the file is not acceptable.
        OSError: if the disk is too full.
    """
    part = path.with_name(f"{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        before = _bytes(part)
        try:
            _receive(url, part, mebibytes)
            break
        except KeyboardInterrupt:
            print(f"{part} keeps what came: run the command again, it resumes", file=sys.stderr)
            raise
        except _CutError:
            if _bytes(part) <= before:
                raise
    try:
        check(part)
    except ValueError:
        _forget(part)
        raise
    part.replace(path)
    _forget(part)


def size(url: str, mebibytes: float | None = None) -> int | None:
    """Bytes behind an address, None if the server does not say. Raises as `download`."""
    with _open(url) as response:
        total = _length(response)
    _check_size(url, total, mebibytes)
    return total


def check_room(folder: Path, needed: int) -> None:
    """Raises OSError if the disk of a folder cannot take so many bytes more."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(f"{folder} needs {needed:,} bytes more, the disk has {free:,} free")


def _receive(url: str, part: Path, mebibytes: float | None) -> None:
    """Brings the rest of a file, or all of it where the rest cannot be had."""
    have, validator = _kept(part, url)
    ranged = {"Range": f"bytes={have}-", "If-Range": validator} if have else {}
    with _open(url, ranged) as response:
        if have and not _continues(response, have, validator):
            if response.status_code != 200:
                _forget(part)
                return _receive(url, part, mebibytes)
            have = 0
        left, validator = _length(response), _validator(response)
        total = None if left is None else have + left
        _check_size(url, total, mebibytes)
        check_room(part.parent, left or 0)
        _note(part).write_text(json.dumps({"url": url, "validator": validator}), "utf-8")
        reason = ""
        with part.open("ab" if have else "wb") as file, _bar(part.stem, have, total) as bar:
            try:
                for block in response.iter_content(BLOCK):
                    bar.update(file.write(block))
            except requests.RequestException as error:
                reason = f" ({_reason(error)})"
    came = _bytes(part)
    if reason or came < (total or 0):
        again = "resumes" if validator else "starts anew"
        of = f"{came:,} of {total:,} bytes" if total else f"{came:,} bytes"
        raise _CutError(f"{url} was cut off at {of}{reason}: run the command again, it {again}")


def _open(url: str, headers: dict[str, str] | None = None) -> requests.Response:
    """An answer whose body is still to be read; one that is an error raises."""
    with requests.Session() as session:
        session.adapters.clear()
        for start in ("https://", "http://127.0.0.1:", "http://localhost:"):
            session.mount(start, HTTPAdapter(max_retries=RETRY))
        try:
            response = session.get(
                url, headers=HEADERS | (headers or {}), stream=True, timeout=TIMEOUT_S
            )
        except ValueError as error:  # no adapter, or no address at all
            raise ValueError(f"{url}: only https is fetched ({error})") from None
        except requests.RequestException as error:
            host = urlsplit(url).netloc
            raise UnreachableError(f"cannot reach {host} ({_reason(error)})") from None
    if response.status_code not in ((200, 206, 416) if headers else (200,)):
        response.close()
        raise ConnectionError(f"{url} answers {response.status_code} {response.reason}")
    return response


def _continues(response: requests.Response, have: int, validator: str) -> bool:
    """Whether an answer is the rest of the same file."""
    place = response.headers.get("Content-Range", "")
    same = _validator(response) == validator
    return response.status_code == 206 and same and place.startswith(f"bytes {have}-")


def _length(response: requests.Response) -> int | None:
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None


def _validator(response: requests.Response) -> str:
    """What If-Range takes: a strong ETag, else the date."""
    etag = response.headers.get("ETag", "")
    return response.headers.get("Last-Modified", "") if etag[:2] in ("", "W/") else etag


def _kept(part: Path, url: str) -> tuple[int, str]:
    """The bytes that a part holds of an address and their validator, (0, "") if it cannot go on."""
    try:
        note = json.loads(_note(part).read_text("utf-8"))
        resumes = note["url"] == url and note["validator"]
        return (_bytes(part), note["validator"]) if resumes else (0, "")
    except (OSError, ValueError, TypeError, KeyError):
        return 0, ""


def _check_size(url: str, total: int | None, mebibytes: float | None) -> None:
    if total and mebibytes and abs(total / 2**20 - mebibytes) > 0.01:
        raise ValueError(f"{url} has {total / 2**20:.3f} MiB instead of {mebibytes}: refused")


def _bar(name: str, have: int, total: int | None) -> tqdm:
    """Bytes, in a terminal only."""
    scale = {"unit": "B", "unit_scale": True, "unit_divisor": 1024}
    return tqdm(desc=name, total=total, initial=have, disable=None, **scale)


def _reason(error: Exception) -> str:
    """The innermost cause, without the names of classes around it."""
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    return str(getattr(error, "reason", error)).rpartition(": ")[2]


def _bytes(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _note(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)
