"""The columns of all result tables: what each means, its type, and how a table uses it.

results/README.md is generated from here.
"""

from dataclasses import dataclass

COLUMNS: dict[str, tuple[type, str]] = {
    # what was run
    "model": (str, "name in co3d.list_models()"),
    "weights": (str, "file or source of the weights and the start of their sha256"),
    "weights_dialect": (str, "layout of the file that the weights come from"),
    "weights_data": (str, "data set that the weights were trained on"),
    "weights_licence": (str, "licence of the weights"),
    "dataset": (str, "data set"),
    "split": (str, "train, val or test"),
    "protocol": (str, "which frames are fed and which prediction counts"),
    "mode": (str, "clip: one prediction per clip; clips: mean of several; stream: one per frame"),
    "window": (int, "span of the head's running average in input frames; blank for clip nets"),
    "image_size": (int, "height and width of a frame in pixels"),
    "frames": (int, "frames fed for one prediction (clip) or per video (stream)"),
    "num_classes": (int, "classes of the classifier"),
    "dense": (int, "1 if a continual net predicts on every frame in spite of temporal strides"),
    "views": (int, "clip predictions averaged into one"),
    "fps": (float, "frames per second of video at which frames are sampled"),
    "position": (float, "share of the free span before the first frame; 0.5 is centred"),
    "fill": (str, "what a stream's state starts from: zeros or replicate; blank for clip nets"),
    "crops": (int, "spatial crops averaged"),
    "channel_order": (str, "rgb or bgr"),
    "norm": (str, "mean/std that frames are normalised with"),
    "limit": (int, "only the first so many videos; 0 is all"),
    "claim": (str, "which equality is measured"),
    "dtype": (str, "number type of the computation"),
    "implementation": (
        str,
        "whose code, in which form: co3d eager, as `create` gives it; co3d optimised, by "
        "`optimize`; onnxruntime and openvino, the file that `co3d export` writes; "
        "continual-inference, the same network of that library's layers; continual-inference "
        "tuned, that with BatchNorm folded, channels-last, activations in place",
    ),
    "batch": (int, "streams or clips computed at once; the times are of all of them"),
    "streams": (int, "streams that are served at a time"),
    "work": (str, "videos: decoded and predicted; driver: records of a network that costs nothing"),
    "actors": (int, "actors of a Ray cluster; 0 is the process that writes, alone"),
    "videos": (int, "videos of the run"),
    "videos_per_s": (float, "videos whose records came, per second"),
    "epoch": (int, "passes over the training videos"),
    "frames_seen": (int, "frames since the stream was reset"),
    # what came out
    "n_expected": (int, "videos of the split, or of its first `limit`"),
    "n_found": (int, "videos found on disk"),
    "n_scored": (int, "videos with a prediction: the denominator of top1 and top5"),
    "top1": (float, "correct at the first guess, percent of n_scored"),
    "top5": (float, "correct within five guesses, percent of n_scored"),
    "ci_low": (
        float,
        "lower end of the 95 % interval: of top1 (Wilson), else map_common (bootstrap)",
    ),
    "ci_high": (float, "upper end of the same"),
    "map_official": (float, "mean average precision, missing videos last, percent"),
    "map_common": (float, "mean average precision over scored videos, percent"),
    "macs_per_prediction": (float, "multiply-accumulates for one prediction"),
    "params": (int, "parameters"),
    "macs_clip": (int, "multiply-accumulates of convolutions and linear layers, one clip"),
    "macs_step": (int, "the same for one step, the largest within a period"),
    "macs_frame": (float, "the same per frame, mean over a period"),
    "flops_paper_clip": (int, "FLOPs of one clip in the paper's counting"),
    "flops_paper_step": (int, "FLOPs of one step as published, norms and ReLUs twice; the largest"),
    "flops_paper_frame": (float, "the same per frame, mean over a period"),
    "flops_once_step": (int, "FLOPs of one step, every term once, without window_sum; the largest"),
    "flops_once_frame": (float, "the same per frame, mean over a period"),
    "window_sum": (int, "additions of the running average for one prediction"),
    "flops_published": (float, "FLOPs in the paper's benchmark table, rounded there to 10^7"),
    "receptive_field": (int, "input frames that one prediction depends on"),
    "padding": (int, "aggregated temporal zero padding at one end, frames"),
    "warmup": (int, "frames before the first output"),
    "stride": (int, "frames between two predictions"),
    "max_abs_diff": (float, "largest difference of the logits"),
    "max_rel_diff": (float, "the same divided by the largest logit"),
    "tolerance": (float, "largest max_rel_diff that counts as equal"),
    "latency_ms_median": (float, "from clip or last frame to prediction, median, ms"),
    "latency_ms_p5": (float, "the same, 5th percentile, ms"),
    "latency_ms_p95": (float, "the same, 95th percentile, ms"),
    "latency_ms_std": (float, "the same, standard deviation, ms"),
    "throughput_per_s": (
        float,
        "batch / median time of all work for a prediction, per s: a stream's mean time per frame "
        "is batch / (throughput_per_s x stride), its latency that of the step that predicts",
    ),
    "peak_mem_mb": (float, "peak of a GPU's allocator in a prediction, weights included, MB"),
    "state_mb": (
        float,
        "memory of one stream's state past its warm-up, MB of 10^6 bytes; behind a temporal stride "
        "an eager state varies with the frame: benchmark right after a prediction, models after as "
        "many frames as the receptive field",
    ),
    "gemm_peak_gmacs": (
        float,
        "best matrix product beside the forms of the network and its twin, by torch or, on a CPU, "
        "by the native engine, 10^9 MACs per second",
    ),
    "alloc_mb": (
        float,
        "CPU: weights, state and input that torch's operators touch and the most that their "
        "results hold in a prediction, MB; without what an operator takes for itself",
    ),
    "moved_mb": (float, "operands and results of all torch operators of a prediction, MB"),
    "copy_peak_gb_per_s": (float, "best copy of 64 MiB beside them, read and written, 10^9 B/s"),
    "repeats": (int, "measurements of the row"),
    "top1_agreement": (float, "videos whose likeliest class is that of float32, % of n_scored"),
    "max_prob_diff": (float, "largest difference of a class's probability to that of float32"),
    "loss": (float, "mean (binary) cross entropy over the epoch's training clips"),
    # where it came from
    "commit": (str, "git commit of the code; blank outside a clone"),
    "dirty": (int, "1 if co3d/, notebook sources or constraints.txt differed from that commit"),
    "date": (str, "day on which this value was first obtained"),
    "co3d": (str, "version"),
    "python": (str, "version"),
    "torch": (str, "version"),
    "av": (str, "version"),
    "ffmpeg": (str, "version inside av"),
    "device": (str, "processor or accelerator"),
    "threads": (int, "CPU threads that may be used"),
    "precision": (str, "number type of the run"),
    "seed": (int, "seed of the random numbers"),
    "notebook": (str, "notebook that wrote the row"),
}
PROVENANCE = tuple(list(COLUMNS)[list(COLUMNS).index("commit") :])


@dataclass(frozen=True)
class Table:
    """Columns of one table by role; `compare` treats each role differently.

    `exact` values are equal or not, `flips` are accuracies, `machine` values depend on the machine
    (times, memory, rounding), `rest` follows from the others and is not compared. A table may be
    `split` by columns of the provenance into files that carry these in their names.
    """

    about: str
    key: tuple[str, ...]
    exact: tuple[str, ...] = ()
    flips: tuple[str, ...] = ()
    machine: tuple[str, ...] = ()
    rest: tuple[str, ...] = ()
    split: tuple[str, ...] = ()

    @property
    def own(self) -> tuple[str, ...]:
        """The columns that a caller fills."""
        return self.key + self.exact + self.flips + self.machine + self.rest

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns, in file order: own, then the provenance that is not among them."""
        return self.own + tuple(name for name in PROVENANCE if name not in self.own)


def _table(about: str, **roles: str) -> Table:
    return Table(about, **{role: tuple(names.split()) for role, names in roles.items()})


TABLES = {
    "accuracy": _table(
        "Accuracy over a data set.",
        key="model weights dataset split protocol mode window frames views position fps fill crops "
        "channel_order norm limit",
        exact="weights_dialect weights_data weights_licence n_expected n_found n_scored "
        "macs_per_prediction map_official map_common",
        flips="top1 top5",
        rest="ci_low ci_high",
    ),
    "models": _table(
        "Size, cost and stream constants of every model, computed from the model itself.",
        key="model window image_size frames num_classes dense",
        exact="params macs_clip macs_step macs_frame flops_paper_clip flops_paper_step "
        "flops_paper_frame flops_once_step flops_once_frame window_sum flops_published "
        "receptive_field padding warmup stride state_mb",
    ),
    "equivalence": _table(
        "How far a stream is from what it must equal, and (no tolerance) from what it does not.",
        key="model window claim dtype frames image_size",
        exact="tolerance",
        machine="max_abs_diff max_rel_diff",
    ),
    "transient": _table(
        "Accuracy against the frames seen since a reset.",
        key="model weights dataset split window fill fps limit frames_seen",
        exact="n_scored",
        flips="top1",
    ),
    "benchmark": _table(
        "Speed and memory of networks in each form, and of their peers.",
        key="model implementation mode window batch threads",
        machine="latency_ms_median latency_ms_p5 latency_ms_p95 latency_ms_std throughput_per_s "
        "peak_mem_mb state_mb gemm_peak_gmacs alloc_mb moved_mb copy_peak_gb_per_s",
        rest="repeats macs_per_prediction stride",
        split="device precision",
    ),
    "precision": _table(
        "Optimised networks in another number type against the same weights in float32.",
        key="model weights dataset split window dtype limit",
        exact="n_scored",
        machine="top1_agreement max_prob_diff",
    ),
    "scaling": _table(
        "Videos per second of runs in this process (0 actors) and on Ray; of the driver alone.",
        key="work actors videos threads",
        machine="videos_per_s",
    ),
    "deployment": _table(
        "Networks in each form: one round of predictions of all streams, or one clip of so many "
        "frames as the window.",
        key="model implementation mode window batch streams threads",
        machine="latency_ms_median latency_ms_p5 latency_ms_p95",
    ),
    "training": _table(
        "Training curves of the committed mini weights; accuracies are of validation clips.",
        key="model dataset seed epoch",
        machine="loss top1 map_common",
    ),
}


def readme() -> str:
    """The text of results/README.md: every table's key, columns and how it is compared."""
    roles = {
        "key": "key",
        "exact": "exact",
        "flips": "flipped videos",
        "machine": "differs by machine",
        "rest": "not compared",
    }
    lines = [
        "# Results",
        "",
        "Everything measured or computed here, as tidy CSV: raw numbers, one row per key, blank",
        "where a value does not apply. The notebooks write the tables and `co3d/report/schema.py`",
        "this page (`make update`), with two exceptions, which are copied here from the runs:",
        "`scaling.csv`, which `co3d scale` writes, and `training.csv`, which only a new training",
        "writes (`co3d reproduce --only A1 -p retrain true`). Nothing is edited by hand. An",
        "unchanged value keeps its row and date. Published numbers are in",
        "[paper/](paper/README.md), never mixed with these.",
        "",
        "The columns marked *key* name a row. `make reproduce` compares the others as marked:",
        "*exact* values are equal or not, accuracies are compared in flipped videos, times and",
        "rounding depend on the machine.",
    ]
    for name, table in TABLES.items():
        file = "-".join([name, *(f"<{column}>" for column in table.split)])
        lines += ["", f"## `{file}.csv`", "", table.about, ""]
        lines += ["| column | type | meaning | compared |", "|---|---|---|---|"]
        for role, label in roles.items():
            lines += [_dictionary_row(column, label) for column in getattr(table, role)]
    lines += ["", "## Provenance", "", "Every row also carries:", ""]
    lines += ["| column | type | meaning |", "|---|---|---|"]
    lines += [_dictionary_row(column) for column in PROVENANCE]
    return "\n".join(lines) + "\n"


def _dictionary_row(column: str, *more: str) -> str:
    kind, meaning = COLUMNS[column]
    return f"| {' | '.join((f'`{column}`', kind.__name__, meaning, *more))} |"
