"""Files over https: resumed where they broke off, and renamed once they are whole.

Plain http is for this machine only.
"""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter, Retry
from tqdm import tqdm

TIMEOUT_S = 30  # of silence
RETRY = Retry(
    total=3,
    backoff_factor=0.5,  # seconds before the second try, then twice as many
    status_forcelist=(429, 500, 502, 503, 504),
    raise_on_status=False,
    respect_retry_after_header=False,
)
BLOCK = 2**16
HEADERS = {
    "User-Agent": "co3d (companion of arXiv:2106.00050)",
    "Accept-Encoding": "identity",  # bytes as they are stored, or Range means others
}


class UnreachableError(ConnectionError):
    """No answer at all."""


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
    try:
        while not _receive(url, part, mebibytes):  # goes on by itself as long as something comes
            pass
        check(part)
    except KeyboardInterrupt:
        print(f"{part} keeps what came: run the command again, it resumes", file=sys.stderr)
        raise
    except ValueError:
        part.unlink(missing_ok=True)
        _note(part).unlink(missing_ok=True)
        raise
    part.replace(path)
    _note(part).unlink(missing_ok=True)


def size(url: str, mebibytes: float | None = None) -> int:
    """Bytes behind an address, 0 if the server does not say. Raises as `download`."""
    with _open(url) as response:
        return _total(url, response, mebibytes)


def _receive(url: str, part: Path, mebibytes: float | None) -> bool:
    """Brings the rest of a file, or all of it where the rest cannot be had; whether it is whole."""
    before = part.stat().st_size if part.is_file() else 0
    validator = _note(part).read_text("utf-8") if before and _note(part).is_file() else ""
    have = before if validator else 0
    with _open(url, {"Range": f"bytes={have}-", "If-Range": validator} if have else {}) as response:
        place = response.headers.get("Content-Range", "")
        if response.status_code == 200:
            have = 0
        elif _validator(response) != validator or not place.startswith(f"bytes {have}-"):
            part.unlink()  # it is no beginning of this file
            return _receive(url, part, mebibytes)
        total, validator = _total(url, response, mebibytes, have), _validator(response)
        free = shutil.disk_usage(part.parent).free
        if total - have > free:
            raise OSError(f"{part.stem} needs {total - have:,} bytes more, the disk has {free:,}")
        if not have:  # no kill may leave the note of one file beside bytes of another
            part.unlink(missing_ok=True)
        _note(part).write_text(validator, "utf-8")
        came, reason = have, ""
        scale = {"unit": "B", "unit_scale": True, "unit_divisor": 1024, "disable": None}
        with (
            part.open("ab") as file,
            tqdm(desc=part.stem, total=total or None, initial=have, **scale) as bar,
        ):
            try:
                for block in response.iter_content(BLOCK):
                    came += file.write(block)
                    bar.update(len(block))
            except requests.RequestException as error:
                reason = f" ({_reason(error)})"
    whole = not reason and came >= total
    if not whole and came <= before:
        again = "resumes" if validator else "starts anew"
        raise ConnectionError(
            f"{url} was cut off at {came:,} of {total:,} bytes{reason}: run the command again, it "
            f"{again}"
        )
    return whole


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


def _total(url: str, response: requests.Response, mebibytes: float | None, have: int = 0) -> int:
    """Bytes of the whole file, of which `have` are here; those alone if the server does not say."""
    length = response.headers.get("Content-Length", "")
    total = have + (int(length) if length.isdecimal() else 0)
    if total and mebibytes and abs(total / 2**20 - mebibytes) > 0.01:
        raise ValueError(f"{url} has {total / 2**20:.3f} MiB instead of {mebibytes}: refused")
    return total


def _validator(response: requests.Response) -> str:
    """What If-Range takes: a strong ETag, else the date."""
    etag = response.headers.get("ETag", "")
    return response.headers.get("Last-Modified", "") if etag[:2] in ("", "W/") else etag


def _reason(error: Exception) -> str:
    """The innermost cause, without the names of classes around it."""
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    return str(getattr(error, "reason", error)).rpartition(": ")[2]


def _note(part: Path) -> Path:
    return part.with_name(f"{part.name}.validator")
