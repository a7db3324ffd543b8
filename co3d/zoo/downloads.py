"""Published weights, fetched once into CACHE_PATH/weights, pinned and verified ever after.

The first file of a name that fits the model pins its sha256 in weights.lock.json: nobody publishes
the hashes.
"""

import hashlib
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import torch

from .. import web
from ..files import locked, write
from ..paths import cache_path
from . import checkpoints, files
from .build import create
from .specs import SPECS, Checkpoint, Spec, spec

LOCK = "weights.lock.json"


def published(
    names: Iterable[str] = (), training_data: str | None = None
) -> list[tuple[Spec, Checkpoint]]:
    """Models, each with one of its published weights: those of `names`, or all.

    Raises:
        ValueError: for an unknown name, or where nobody publishes such weights.
    """
    names = tuple(names)
    chosen = {}
    for record in (spec(spec(name).weights) for name in names or SPECS):
        fitting = [w for w in record.checkpoints if training_data in (None, w.training_data)]
        if names and not fitting:
            kind = f"no {training_data}" if training_data and record.checkpoints else "no"
            raise ValueError(f"{kind} weights are published for {record.name}")
        chosen |= {(record, weights): None for weights in fitting}
    if not chosen:
        known = dict.fromkeys(w.training_data for name in SPECS for w in SPECS[name].checkpoints)
        raise ValueError(f"nobody publishes {training_data} weights: there are {', '.join(known)}")
    return list(chosen)


def place(record: Spec, weights: Checkpoint) -> Path:
    """Where the file is, or will be."""
    suffix = Path(urlsplit(weights.url).path).suffix
    return cache_path() / "weights" / f"{record.weights}.{weights.training_data}{suffix}"


def fetch(record: Spec, weights: Checkpoint, sha256: str = "") -> Path:
    """The verified file of published weights, downloaded if it is not there.

    Args:
        sha256: what the file must have, in 64 digits, where the caller knows.

    Raises:
        ConnectionError: if nobody answers, the answer is an error, or was cut off.
        ValueError: if the file is not whole weights of the model, or other ones than before or
            expected, or its address, a redirection or its size is not acceptable.
        OSError: if the disk is full or the lock file cannot be read.
    """
    path = place(record, weights)
    verify = partial(_verify, record=record, weights=weights, sha256=sha256)
    with locked(path.parent):
        if path.is_file():
            verify(path)
            return path
        try:
            web.download(weights.url, path, mebibytes=weights.mebibytes, check=verify)
        except web.UnreachableError as error:
            raise ConnectionError(
                f"{error}: run `co3d download weights {record.name}` where there is a network, or "
                f"copy the file to {path}"
            ) from None
    return path


def _verify(file: Path, record: Spec, weights: Checkpoint, sha256: str) -> None:
    """Refuses what is no weights or not the expected ones; pins the first that fit the model."""
    name = file.name.removesuffix(".part")
    try:
        files.sniff(file)
    except ValueError as error:
        raise ValueError(f"{name} from {weights.url} {error}") from None
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    lock = file.with_name(LOCK)
    pins = _pins(lock)
    if sha256 and digest != sha256.lower():
        raise ValueError(f"{name} has sha256 {digest}, not {sha256} as asked for")
    if not digest.startswith(weights.sha256.lower()):
        raise ValueError(f"{name} has sha256 {digest}, not {weights.sha256} as published")
    if name in pins:
        if digest != pins[name]["sha256"]:
            raise ValueError(
                f"{name} has sha256 {digest}, not {pins[name]['sha256']} as pinned in {lock}: "
                "delete the file and download it again, or, if you trust it, remove the entry "
                f"{name} there"
            )
        return
    try:
        with torch.random.fork_rng(devices=[]):
            checkpoints.load_into(create(record.weights, num_classes=weights.num_classes), file)
    except ValueError as error:
        reason = str(error).replace(file.name, name)
        raise ValueError(f"{reason} (from {weights.url}, not pinned)") from None
    pin = {"url": weights.url, "sha256": digest, "bytes": file.stat().st_size}
    pins[name] = pin | {"date": f"{datetime.now(UTC):%Y-%m-%d}"}
    write(lock, json.dumps(pins, indent=2) + "\n")


def _pins(lock: Path) -> dict[str, dict]:
    """What the lock file holds, by the names of files. Raises OSError if it is damaged."""
    try:
        pins = json.loads(lock.read_text("utf-8")) if lock.is_file() else {}
        if not all(isinstance(pin["sha256"], str) for pin in pins.values()):
            raise ValueError
    except (ValueError, AttributeError, TypeError, KeyError):
        raise OSError(f"{lock} cannot be read: repair or delete it") from None
    return pins
