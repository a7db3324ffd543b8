"""The parts of README.md between two marks, which follow from what the code knows."""

import re
from pathlib import Path

import pandas as pd

from ..files import write
from ..zoo.downloads import published
from ..zoo.specs import Checkpoint, Spec
from . import results, tables
from .style import label


def models() -> str:
    """The table of models, a row for each published file of weights."""
    rows = pd.DataFrame([_row(*pair) for pair in published()])
    return tables.markdown(rows, tuple(rows))


def scaling(root: Path) -> str:
    """What was measured of runs on Ray; blank without results."""
    rows = results.read("scaling", root / "results")
    if rows.empty:
        return ""
    shown = rows[["work", "actors", "videos"]].assign(**{
        "videos/s": rows["videos_per_s"].map("{:,.0f}".format)
    })  # fmt: skip
    return tables.markdown(shown.astype(str), tuple(shown))


def with_block(text: str, name: str, block: str) -> str:
    """The text of a README with `block` between the marks of that name.

    Raises:
        ValueError: if the marks are not there.
    """
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    whole = f"{begin}\n\n{block}\n{end}"
    text, count = re.subn(f"{begin}.*?{end}", lambda _: whole, text, flags=re.DOTALL)
    if not count:
        raise ValueError(f"README.md lacks the marks {begin} and {end}")
    return text


def refresh(root: Path, **blocks: str) -> None:
    """Put the blocks into root/README.md, if there is one, each between the marks of its name."""
    path = root / "README.md"
    if not path.is_file():
        return
    text = path.read_text("utf-8")
    for name, block in blocks.items():
        text = with_block(text, name, block)
    write(path, text)


def _row(record: Spec, weights: Checkpoint) -> dict[str, str]:
    file = weights.url.rpartition("/")[2]
    traits = [f"{weights.num_classes} classes"] if weights.num_classes != 400 else []
    traits += [weights.channel_order.upper()] if weights.channel_order != "rgb" else []
    pair, source = (record.name, f"co{record.name}"), weights.source
    return {
        "model": f"{label(record.name)}: `{pair[0]}`, `{pair[1]}`",
        "paper": f"[arXiv:{record.paper.rpartition('/')[2]}]({record.paper})",
        "original source": f"[{'/'.join(source.split('/')[-2:])}]({source})",
        "weights": ", ".join([f"`{weights.training_data}`: [{file}]({weights.url})", *traits]),
        "licence": weights.licence,
        "evaluate": f"`co3d evaluate {weights.training_data} --models {','.join(pair)}`",
        "benchmark": f"`co3d bench {' '.join(pair)}`",
    }
