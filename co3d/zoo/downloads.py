"""Published weights, fetched once into CACHE_PATH/weights, pinned and verified ever after.

The first file of a name that fits the model pins its sha256 in weights.lock.json: nobody publishes
the hashes.
"""

import hashlib
import json
import os
import re
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import torch

from .. import web
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
    found = {}
    for record in (spec(spec(name).weights) for name in names or SPECS):
        some = [w for w in record.checkpoints if training_data in (None, w.training_data)]
        if names and not some:
            kind = f"no {training_data}" if training_data and record.checkpoints else "no"
            raise ValueError(f"{kind} weights are published for {record.name}")
        found |= {(record, weights): None for weights in some}
    if not found:
        known = dict.fromkeys(w.training_data for name in SPECS for w in SPECS[name].checkpoints)
        raise ValueError(f"nobody publishes {training_data} weights: there are {', '.join(known)}")
    return list(found)


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
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with web.alone(path):
            if not path.is_file():  # else another process has brought it meanwhile
                _download(record, weights, sha256, path)
                return path
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    _verify(path, path.name, digest, weights, sha256)
    _pin(path, path.name, digest, record, weights)
    return path


def _download(record: Spec, weights: Checkpoint, sha256: str, path: Path) -> None:
    part = path.with_name(path.name + ".part")
    try:
        digest = web.receive(weights.url, part, weights.mebibytes)
    except KeyboardInterrupt:
        print(f"{part} keeps what came: run the command again, it resumes", file=sys.stderr)
        raise
    except web.UnreachableError as error:
        raise ConnectionError(
            f"{error}: run `co3d download weights {record.name}` where there is a network, or "
            f"copy the file to {path}"
        ) from None
    try:
        _verify(part, path.name, digest, weights, sha256)
        _pin(part, path.name, digest, record, weights)
    except ValueError:
        web.forget(part)
        raise
    os.replace(part, path)
    web.forget(part)


def _verify(file: Path, name: str, digest: str, weights: Checkpoint, sha256: str) -> None:
    """Refuses what is no weights or not the expected ones."""
    try:
        files.sniff(file)
    except ValueError as error:
        raise ValueError(f"{name} from {weights.url} {error}") from None
    has = f"{name} has sha256 {digest}, not"
    if sha256 and digest != sha256.lower():
        raise ValueError(f"{has} {sha256} as asked for")
    if not digest.startswith(weights.sha256.lower()):
        raise ValueError(f"{has} {weights.sha256} as published by its authors")


def _pin(file: Path, name: str, digest: str, record: Spec, weights: Checkpoint) -> None:
    """Refuses other weights than those that are pinned, or pins them if they fit the model."""
    lock = file.with_name(LOCK)
    if name not in _pins(lock):
        _check(file, name, record, weights)
        with web.alone(lock):
            pin = {"url": weights.url, "sha256": digest, "bytes": file.stat().st_size}
            pin["date"] = datetime.now(UTC).strftime("%Y-%m-%d")
            new = lock.with_name(lock.name + ".part")
            new.write_text(json.dumps({name: pin} | _pins(lock), indent=2) + "\n", "utf-8")
            os.replace(new, lock)
    pinned = _pins(lock)[name]["sha256"]
    if digest != pinned:
        todo = f"remove the entry {name} there if the change is wanted"
        if file.name == name:
            todo = f"delete that file and download it again, or, if you trust it, {todo}"
        raise ValueError(f"{name} has sha256 {digest}, not {pinned} as pinned in {lock}: {todo}")


def _check(file: Path, name: str, record: Spec, weights: Checkpoint) -> None:
    """Reads all of a file into its model once."""
    try:
        with torch.random.fork_rng(devices=[]):
            model = create(record.weights, num_classes=weights.num_classes)
        checkpoints.load_into(model, file)
    except ValueError as error:
        told = str(error).replace(file.name, name)
        raise ValueError(f"{told} (from {weights.url}, not pinned)") from None


def _pins(lock: Path) -> dict[str, dict]:
    try:
        pins = json.loads(lock.read_text("utf-8")) if lock.is_file() else {}
    except ValueError:
        pins = None
    if not isinstance(pins, dict):
        raise OSError(f"{lock} cannot be read: repair or delete it")
    for name, pin in pins.items():
        digest = pin.get("sha256") if isinstance(pin, dict) else None
        if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
            raise OSError(
                f"{lock} has no sha256 of 64 lower-case digits for {name!r}: remove that entry"
            )
    return pins
