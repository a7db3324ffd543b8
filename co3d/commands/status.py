"""co3d alone: what is found on this machine, and the next useful command."""

import platform
from contextlib import suppress
from pathlib import Path

import click

from .. import paths

REAL = ("kinetics400", "charades")


def status() -> None:
    """Prints versions, devices, folders, data sets, weights, notebooks; looks at no video."""
    import torch

    from .. import __version__
    from ..report.origin import device_name

    gpus = range(torch.cuda.device_count())
    datasets = paths.datasets_path()
    runs = paths.logs_path().is_dir() and any(paths.logs_path().glob("*/html"))
    splits = {name: _splits(name) for name in REAL}
    texts = {
        "co3d": [f"{__version__}, torch {torch.__version__}, Python {platform.python_version()}"],
        "device": [
            f"cpu: {device_name()}, {torch.get_num_threads()} threads",
            *(f"cuda:{number}: {device_name(f'cuda:{number}')}" for number in gpus),
        ],
        "engine": [_engine()],
        "runs": [_folder(paths.logs_path())],
        "cache": [_folder(paths.cache_path())],
        "datasets": [
            _folder(datasets) if datasets else "none (set DATASETS_PATH, see .env.example)"
        ],
        "data": [_real_set(*pair) for pair in splits.items()] + _synthetic_sets(),
        "weights": _weights(),
        "notebooks": [_notebooks(any(splits.values()))],
        "next": ["co3d lab" if runs else "co3d quick, then co3d reproduce"],
    }
    for name, lines in texts.items():
        for number, line in enumerate(lines):
            click.echo(f"{'' if number else name:<10}{line}")


def _engine() -> str:
    """What runs the steps of optimised nets."""
    from ..deploy.native import NoCompiler, library

    try:
        return f"native, by {library.compiler()}"
    except NoCompiler as error:
        return f"torch: {error}"


def _folder(path: Path) -> str:
    return f"{path}{'' if path.is_dir() else '  (not there yet)'}"


def _splits(name: str) -> list[str]:
    """The splits of a real set that have an annotation and a folder of media."""
    from ..data import charades, kinetics, sets

    splits = []
    for split in (charades if name == "charades" else kinetics).SPELLINGS:
        with suppress(FileNotFoundError):  # no set, or no annotation
            root = sets.set_root(name)
            if name == "charades":
                media = charades.annotation(root, split) and charades.media(root)
            else:
                media = kinetics.annotation(root, split) and kinetics.folders(root, split)
            splits += [split] if media else []
    return splits


def _real_set(name: str, splits: list[str]) -> str:
    there = f"{', '.join(splits)} (co3d verify {name} counts videos)"
    return f"{name}: {there if splits else f'not found: co3d download {name}'}"


def _synthetic_sets() -> list[str]:
    from ..data.sets import GENERATED

    lines = []
    for name, module in GENERATED.items():
        made, planned = len(list(module.folder().rglob("*.mp4"))), sum(module.SPLITS.values())
        lines.append(f"{name}: {made} of {planned} videos made (on first use)")
    return lines


def _weights() -> list[str]:
    """What comes with co3d, by training data, and what of the published weights is fetched."""
    from .. import list_models
    from ..zoo import checkpoints, downloads

    models: dict[str, list[str]] = {}
    for name in list_models():
        for data in checkpoints.shipped(name):
            models.setdefault(data, []).append(name)
    published = downloads.published()
    there = [
        f"{record.name} {weights.training_data}"
        for record, weights in published
        if downloads.place(record, weights).is_file()
    ]
    what = ", ".join(there) or "co3d download weights"
    lines = [f"{data}: {', '.join(names)}" for data, names in sorted(models.items())]
    return [*lines, f"published: {len(there)} of {len(published)} fetched ({what})"]


def _notebooks(real: bool) -> str:
    from ..report import notebooks

    where = "co3d reproduce --profile full runs them on real sets" if real else "no real set"
    return f"{', '.join(name[:2] for name in notebooks.names())} run as they are; {where}"
