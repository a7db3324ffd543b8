"""co3d alone: what is found on this machine, and the next useful command."""

import platform
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import click

from .. import paths

# Notebooks that evaluate a data set: a synthetic one by default, the real one where it is found.
REAL = {"05": "kinetics400", "06": "charades", "07": "kinetics400"}
SYNTHETIC = {"kinetics400": "synthetic-kinetics", "charades": "synthetic-charades"}


def status() -> None:
    """Prints versions, devices, folders, data sets, weights, notebooks; looks at no video."""
    import torch

    from .. import __version__
    from ..report.origin import device_name

    _lines("co3d", f"{__version__}, torch {torch.__version__}, Python {platform.python_version()}")
    _lines("device", f"cpu: {device_name()}, {torch.get_num_threads()} threads")
    for number in range(torch.cuda.device_count()):
        _lines("", f"cuda:{number}: {device_name(f'cuda:{number}')}")
    _lines("engine", _engine())
    _lines("runs", _found(paths.logs_path()))
    _lines("cache", _found(paths.cache_path()))
    data = paths.datasets_path()
    _lines("datasets", _found(data) if data else "none (set DATASETS_PATH, see .env.example)")
    sets = {name: _real_set(name) for name in SYNTHETIC}
    missing = "not found: co3d download {}"
    real = (f"{name}: {found or missing.format(name)}" for name, found in sets.items())
    _lines("data", *real, *_synthetic_sets())
    _lines("weights", *_weights())
    _lines("notebooks", *_notebooks({name for name, found in sets.items() if found}))
    runs = paths.logs_path().is_dir() and any(paths.logs_path().glob("*/html"))
    _lines("next", "co3d lab" if runs else "co3d quick, then co3d reproduce")


def _engine() -> str:
    """What runs the steps of optimised nets."""
    from ..deploy.native import NoCompiler, library

    try:
        return f"native, by {library.compiler()}"
    except NoCompiler as error:
        return f"torch: {error}"


def _lines(name: str, *texts: object) -> None:
    for n, text in enumerate(texts):
        click.echo(f"{'' if n else name:<10}{text}")


def _found(folder: Path) -> str:
    return f"{folder}{'' if folder.is_dir() else '  (not there yet)'}"


def _real_set(name: str) -> str:
    """Which splits of a set can be used: they have an annotation, and a folder of media; "" none.

    Whether the folder holds all videos is for `co3d verify`.
    """
    from ..data import charades, kinetics, sets

    try:
        root = sets.set_root(name)
    except FileNotFoundError:
        return ""
    splits, annotation, media = {
        "kinetics400": (("train", "val", "test"), kinetics.annotation, kinetics.folders),
        "charades": (("train", "test"), charades.annotation, lambda root, _: charades.media(root)),
    }[name]
    usable = []
    for split in splits:
        with suppress(FileNotFoundError):  # no annotation
            annotation(root, split)
            usable += [split] if media(root, split) else []
    return f"{', '.join(usable)} (co3d verify {name} counts videos)" if usable else ""


def _synthetic_sets() -> Iterator[str]:
    from ..data import synthetic, synthetic_charades

    for name, module in (
        ("synthetic-kinetics", synthetic),
        ("synthetic-charades", synthetic_charades),
    ):
        made = sum(1 for _ in module.folder().rglob("*.mp4"))
        total = sum(module.SPLITS.values())
        yield f"{name}: {made} of {total} videos made (on first use)"


def _weights() -> Iterator[str]:
    """What comes with co3d, by training data, and what of the published weights is fetched."""
    from .. import list_models
    from ..zoo import downloads
    from ..zoo.checkpoints import shipped

    models: dict[str, list[str]] = {}
    for name in list_models():
        for data in shipped(name):
            models.setdefault(data, []).append(name)
    for data, names in sorted(models.items()):
        yield f"{data}: {', '.join(names)}"
    published = downloads.published()
    there = [f"{record.name} {weights.training_data}" for record, weights in published
             if downloads.place(record, weights).is_file()]  # fmt: skip
    what = ", ".join(there) or "co3d download weights"
    yield f"published: {len(there)} of {len(published)} fetched ({what})"


def _notebooks(found: set[str]) -> Iterator[str]:
    """Which notebooks can run on what."""
    from ..report import notebooks

    numbers = [name[:2] for name in notebooks.names()]
    yield f"{', '.join(n for n in numbers if n not in REAL) or 'none here'}: run as they are"
    for name, synthetic in SYNTHETIC.items():
        those = ", ".join(n for n in numbers if REAL.get(n) == name)
        if those and name in found:
            yield f"{those}: run on {synthetic} and {name} (co3d reproduce --profile full)"
        elif those:
            yield f"{those}: run on {synthetic} ({name} is not found)"
