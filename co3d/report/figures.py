"""The files of figures and tables: what each shows, from what it is drawn, and how it is written.

`FIGURES` is the one list of them. A file says in its metadata what its entry here says, with the
commit that drew it; a picture that did not change keeps its file, as rows of results do.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from PIL import Image, ImageSequence

from .origin import git_state
from .style import STYLE

LICENCE = "Apache-2.0"


@dataclass(frozen=True)
class Record:
    """What stands in figures/ under one stem.

    Attributes:
        notebook: that draws it.
        tables: in results/, without .csv, that it is drawn from; none where the notebook computes
            what it draws.
        caption: one or more sentences on what is seen.
    """

    notebook: str
    tables: tuple[str, ...]
    caption: str

    @property
    def sources(self) -> str:
        """The files that it is drawn from, or the notebook."""
        files = [f"results/{table}.csv" for table in self.tables]
        return ", ".join(files or [f"notebooks/{self.notebook}.ipynb"])


_PAPER = "paper/kinetics400_published"
_SPEED = "benchmark-<device>-<precision>"
_TUNED = "Tuned: BatchNorm folded, channels-last, activations in place."
_PERIOD = "A stream is charged all steps since its last prediction."
_STEP = "A stream is charged the step that predicts, as in the paper."
_PER_CLASS = "a row per class, a column per reading; streams are named with their window."
_GAIN = "by class: that of the stream with the widest window less that of its clip network."
FIGURES = {
    "start_here": Record(
        "00_start_here",
        (),
        "Probability of the true class of one synthetic video, by clips and by streams with two "
        "windows, against time; the lines below show how long each has no prediction.",
    ),
    "hero": Record(
        "00_start_here",
        (),
        "A clip network and a stream on the same frames: what each computes for a prediction, its "
        "multiply-accumulates adding up.",
    ),
    "continual_principle": Record(
        "01_continual_convolution",
        (),
        "One step of a continual convolution on numbers: the new frame times every kernel slice, "
        "plus what is stored, completes one output and leaves two sums in the state.",
    ),
    "continual_animation": Record(
        "01_continual_convolution",
        (),
        "Multiplications of a convolution over overlapping clips and of one that goes on frame by "
        "frame.",
    ),
    "continual_padding": Record(
        "01_continual_convolution",
        (),
        "Which values of two convolutions feel the zero padding of a clip, and that none of a "
        "stream does.",
    ),
    "continual_residual": Record(
        "01_continual_convolution",
        (),
        "A shortcut meets the output of its own frame only if it waits as long as the main branch "
        "does.",
    ),
    "equivalence_over_time": Record(
        "02_equivalence",
        (),
        "Difference in float64 of streams that begin in the middle of a video from streams that "
        "saw all of it, against frames since they began; it ends at the receptive field (RF).",
    ),
    "break_even": Record(
        "03_complexity",
        ("models",),
        "The time between two predictions up to which a stream needs fewer multiply-accumulates "
        "than its clip network.",
    ),
    "speed_ladder": Record(
        "04_speed",
        (_SPEED,),
        "Time per prediction on a logarithmic axis, measured: the clip network, the same stream "
        "from the layers of continual-inference, and each form of the stream here. "
        f"{_TUNED} The factors are over the fastest form of the clip network in float32.",
    ),
    "savings": Record(
        "04_speed",
        (_SPEED,),
        "What a stream saves of the fastest form of its clip network per prediction: "
        "multiply-accumulates (bar) and measured time of each form of the stream (marks).",
    ),
    "roofline": Record(
        "04_speed",
        (_SPEED,),
        "Measured multiply-accumulates per second of each form against multiply-accumulates per "
        "byte of weights and state, below what a copy and a matrix product reach on the same "
        f"machine. {_TUNED}",
    ),
    "published_throughput": Record(
        "04_speed",
        (_PAPER,),
        "Published evaluations per second, of clips by clip networks and of frames by their "
        "streams at the native window, on four devices. CoI3D predicts with every second frame.",
    ),
    "synthetic_accuracy_per_class": Record(
        "05_kinetics400",
        ("accuracy",),
        f"Measured top-1 on the generated synthetic-kinetics, {_PER_CLASS}",
    ),
    "kinetics400_accuracy_per_class": Record(
        "05_kinetics400", ("accuracy",), f"Measured top-1 on Kinetics-400, {_PER_CLASS}"
    ),
    "synthetic_charades_map": Record(
        "06_charades",
        ("accuracy",),
        "Measured mean average precision on the generated synthetic-charades against "
        f"multiply-accumulates per prediction, with 95 % intervals. {_PERIOD}",
    ),
    "charades_map": Record(
        "06_charades",
        ("accuracy",),
        "Measured mean average precision on Charades against multiply-accumulates per "
        f"prediction, with 95 % intervals. {_PERIOD}",
    ),
    "synthetic_charades_per_class": Record(
        "06_charades",
        ("accuracy",),
        f"Measured average precision on the generated synthetic-charades, {_GAIN}",
    ),
    "charades_per_class": Record(
        "06_charades", ("accuracy",), f"Measured average precision on Charades, {_GAIN}"
    ),
    "start_up": Record(
        "07_start_up_and_context",
        ("paper/transient_published", "transient", "accuracy"),
        "Top-1 against frames since a reset, published and measured in rows of their own, for "
        "states that begin as zeros and as copies of what the first frame gives.",
    ),
    "accuracy_vs_window": Record(
        "07_start_up_and_context",
        ("paper/pool_sweep_published", "accuracy"),
        "Top-1 of streams against the window of their running average, published and measured in "
        "rows of their own; the control is the average of clips over the same frames.",
    ),
    "accuracy_vs_rate": Record(
        "07_start_up_and_context",
        ("accuracy",),
        "Measured top-1 on the generated synthetic-kinetics against the frames fed per second and "
        "against the clip's place in the video.",
    ),
    "published_accuracy_vs_macs": Record(
        "08_figures_and_tables",
        (_PAPER, "paper/kinetics400_context_published"),
        "Published top-1 on Kinetics-400 against published GFLOPs, which are multiply-accumulates, "
        f"of one clip or of a stream's step. {_STEP} Arrows lead from a clip network to its stream "
        "with the same weights and a window of 64 frames; a dotted line joins its native window. "
        "RCU is known approximately. Transformers are context; streaming networks that publish on "
        "other data sets are left out.",
    ),
    "published_accuracy_vs_counted_macs": Record(
        "08_figures_and_tables",
        (_PAPER, "models"),
        "Published top-1 on Kinetics-400 against the multiply-accumulates of one clip or of a "
        f"stream's step as counted here, with a stroke at the published GFLOPs. {_STEP}",
    ),
    "synthetic_accuracy_vs_macs": Record(
        "08_figures_and_tables",
        ("accuracy",),
        "Measured top-1 on the generated synthetic-kinetics against multiply-accumulates per "
        f"prediction, with 95 % intervals. {_PERIOD}",
    ),
    "published_benchmark": Record(
        "08_figures_and_tables",
        (_PAPER, "models"),
        "The published benchmark on Kinetics-400; a prediction takes what stands under Per. "
        f'{_STEP} Columns with "here" are counted here. Bold rows are Pareto-optimal in top-1 and '
        "GFLOPs.",
    ),
    "synthetic_accuracy": Record(
        "08_figures_and_tables",
        ("accuracy",),
        "Measured top-1 on the generated synthetic-kinetics, which shows the mechanism; its size "
        f"on real data is what the published numbers say. {_PERIOD} Bold rows are Pareto-optimal "
        "in top-1 and MMACs.",
    ),
    "live_stream": Record(
        "09_live_stream",
        (),
        "The likeliest class of a stream and of its clip network for one synthetic video, frame by "
        "frame; the start of the stream is shaded.",
    ),
    "deploy_window": Record(
        "10_deploy",
        ("deployment",),
        "Measured time of a prediction against the window, by steps of a stream and by whole "
        "clips, in each form.",
    ),
    "deploy_streams": Record(
        "10_deploy",
        ("deployment",),
        "Measured time of a frame against the number of concurrent streams, in turns and in one "
        "batch.",
    ),
    "training_curve": Record(
        "A1_train_mini",
        ("training",),
        "Validation accuracy of the mini networks on both synthetic sets; dashed and dotted lines "
        "are further seeds.",
    ),
}


def metadata(stem: str) -> dict[str, str]:
    """What a file of this stem says of itself, in the words of Dublin Core."""
    commit, dirty = git_state()
    said = {"Title": stem, "Rights": LICENCE}
    if record := FIGURES.get(stem):
        said |= {"Description": record.caption, "Source": record.sources}
        said |= {"Relation": f"notebooks/{record.notebook}.ipynb"}
    if commit:
        said["Identifier"] = f"commit {commit}" + (", with changes" if dirty else "")
    return said


def save(fig: Figure, stem: str, folder: Path | str) -> Path:
    """Write folder/figures/stem.svg and .png with their metadata; returns the PNG.

    Equal figures give equal bytes at one commit.
    """
    png, said = target(stem + ".png", folder), metadata(stem)
    nothing = {".svg": {"Date": None}, ".png": {"Software": None}}  # no times, no versions
    with mpl.rc_context(STYLE):
        for suffix, extra in nothing.items():
            path = png.with_suffix(suffix)
            part = path.with_name(path.name + ".part")
            fig.savefig(part, format=path.suffix[1:], dpi=160, metadata={**said, **extra})
            part.replace(path)
    return png


def target(name: str, folder: Path | str) -> Path:
    """folder/figures/name, its folder made."""
    figures = Path(folder) / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    return figures / name


def merge(new: Path, folder: Path) -> list[str]:
    """Copy the files of `new` into `folder`, except pictures that differ in metadata alone.

    Returns the names of those that were copied.
    """
    folder.mkdir(parents=True, exist_ok=True)
    copied = []
    for path in sorted(new.iterdir()):
        there = folder / path.name
        if there.exists() and seen(path) == seen(there):
            continue
        part = there.with_name(there.name + ".part")
        part.write_bytes(path.read_bytes())
        os.replace(part, there)
        copied.append(path.name)
    return copied


def seen(path: Path) -> object:
    """What a file shows, without its metadata: equal for equal pictures."""
    if path.suffix == ".svg":
        return re.sub(r"<metadata>.*?</metadata>", "", path.read_text("utf-8"), flags=re.DOTALL)
    if path.suffix not in (".png", ".gif"):
        return path.read_bytes()
    with Image.open(path) as image:
        return [
            (one.size, one.info.get("duration"), one.convert("RGBA").tobytes())
            for one in ImageSequence.Iterator(image)
        ]
