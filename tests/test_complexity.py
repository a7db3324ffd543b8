"""Costs: the published counts to the last digit, and each term against counting by hand."""

import csv

import pandas as pd
import pytest
import torch
from fvcore.nn import FlopCountAnalysis

import co3d
from co3d import nn, report
from co3d.measure import complexity, sizes
from co3d.measure.complexity import Cost, cost_clip, cost_steps
from co3d.paths import repo_root
from co3d.report.schema import TABLES

with (repo_root() / "results" / "paper" / "flops_exact.csv").open() as file:
    EXACT = list(csv.DictReader(file))


@pytest.mark.parametrize("exact", EXACT, ids=lambda e: f"{e['model']}-{e['window'] or e['frames']}")
def test_counts_equal_the_published_ones_to_the_last_digit(exact):
    stream = co3d.spec(exact["model"]).continual
    length = {"window": int(exact["window"])} if stream else {"frames": int(exact["frames"])}
    row = sizes.row(exact["model"], **length)
    kind = "step" if stream else "clip"
    assert row["params"] == int(exact["params"])
    assert row["image_size"] == int(exact["image_size"])
    assert row[f"flops_paper_{kind}"] == int(exact["flops_published_convention"])
    once = row["flops_once_step" if stream else "flops_paper_clip"]
    assert once == int(exact["flops_counted_once"])
    if exact["macs_conv_fc"]:
        assert row[f"macs_{kind}"] == int(exact["macs_conv_fc"])
    if row["flops_published"]:
        assert sizes.matches_published(row)
    else:
        assert exact["model"] == "cox3d_xs"


def test_the_slips_of_the_published_step():
    size, window = 160, 13
    frame = torch.empty(1, 3, size, size)
    (cost,) = cost_steps(co3d.create("cox3d_s", window=window), frame)
    assert (cost.linear, cost.linear_published) == (2048 * 400 + 400, 2049)
    assert cost.counted_twice == cost.norms + cost.activations
    assert cost.published - cost.once == cost.counted_twice - 819_600 + 2049
    assert cost.window_sum == 432 * window and cost.pools_held == cost.identity_pools == 0


def test_coi3d_counts_one_frame_at_its_pool_and_costs_less_on_average():
    model = co3d.create("coi3d_8x8_r50")
    costs = sorted(cost_steps(model, torch.empty(1, 3, 224, 224)), key=lambda cost: cost.macs)
    idle, emitting = costs
    assert emitting.pools_held == 256 * 56 * 56 and idle.pools_held == 0
    assert (idle.linear, idle.linear_published, idle.window_sum) == (0, 0, 0)
    row = sizes.row("coi3d_8x8_r50")
    assert round(row["macs_frame"] / 1e9, 2) == 3.55  # paper
    held = emitting.pools_held
    assert row["flops_once_frame"] == (idle.once + emitting.once + held) / 2
    assert row["flops_paper_frame"] == (idle.published + emitting.published + held) / 2


def test_identity_pools_stand_where_the_published_code_has_them():
    slow = cost_clip(co3d.create("slow_8x8_r50"), torch.empty(1, 3, 8, 256, 256))
    assert slow.identity_pools == 8 * 256 * 64**2
    two = cost_clip(co3d.create("slowfast_8x8_r50"), torch.empty(1, 3, 32, 256, 256))
    # the slow path's is behind the join, with 2 x 32 channels of the fast path
    assert two.identity_pools == (8 * (256 + 64) + 32 * 32) * 64**2
    for name in ("i3d_mini", "x3d_mini", "r2plus1d_mini"):
        assert cost_clip(co3d.create(name), torch.empty(1, 3, 16, 48, 48)).identity_pools == 0


CLIP = (1, 4, 6, 5, 5)  # 6 frames of 4 channels
MAP = 4 * 5 * 5
LAYERS = {
    "convolution": (nn.Conv3d(4, 3, 3, padding=1, bias=False), Cost(macs=27 * 4 * 3 * 25)),
    "bias, inputs kept": (
        nn.Conv3d(4, 8, 3, padding=1),
        Cost(macs=27 * 4 * 8 * 25, biases=8 * 25),
    ),
    "bias, sums kept": (nn.Conv3d(4, 3, 3, padding=1), Cost(macs=27 * 4 * 3 * 25, biases=75)),
    "groups": (nn.Conv3d(4, 4, 3, padding=1, groups=4, bias=False), Cost(macs=27 * 4 * 25)),
    "batch normalisation": (nn.BatchNorm3d(4), Cost(norms=2 * MAP)),
    "relu": (nn.ReLU(), Cost(activations=MAP)),
    "spatial pool": (nn.MaxPool3d((1, 2, 2)), Cost(pools=MAP)),
    "overlapping pool": (nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)), Cost(pools=MAP)),
    "identity pool": (nn.MaxPool3d(1), Cost(identity_pools=MAP)),
    "average pool": (nn.AvgPool3d((1, 5, 5)), Cost(pools=MAP)),
    "adaptive pool": (nn.AdaptiveAvgPool3d((None, 1, 1)), Cost(pools=MAP)),
    "gate": (
        nn.SqueezeExcite(4, 2, gate="frame"),
        Cost(macs=4 * 2 + 2 * 4, biases=2 + 4, activations=2, pools=MAP),
    ),
    "residual": (nn.Residual(nn.ReLU(), None, nn.ReLU()), Cost(activations=2 * MAP)),
    "free": (nn.Sequential(nn.SiLU(), nn.Sigmoid(), nn.Dropout(), nn.Identity()), Cost()),
}


@pytest.mark.parametrize("layer, cost", LAYERS.values(), ids=LAYERS)
def test_each_term_by_hand(layer, cost):
    layer, clip = layer.eval(), torch.zeros(CLIP)
    (step,) = cost_steps(layer, clip[:, :, 0])
    assert step == cost
    assert cost_clip(layer, clip) == Cost(**{term: 6 * n for term, n in vars(cost).items()})


def test_head_by_hand():
    pool, classifier = nn.RunningWindow(5), nn.Linear(4, 3)
    (step,) = cost_steps(nn.Sequential(pool, classifier).eval(), torch.zeros(1, 4, 5, 5))
    assert step == Cost(12, 3, pools=MAP, linear=15, linear_published=5, window_sum=4 * 5)
    assert step.once == 15 + MAP and step.published == 5 + MAP
    whole = cost_clip(nn.AdaptiveAvgPool3d(1), torch.zeros(CLIP))
    assert whole == Cost(pools=6 * MAP)


def test_temporal_pools_count_every_frame_once():
    frame = torch.zeros(1, 4, 5, 5)
    strided = cost_steps(nn.MaxPool3d((2, 1, 1)), frame)
    assert sorted(cost.pools + cost.pools_held for cost in strided) == [0, 2 * MAP]
    assert sum(cost.pools_held for cost in strided) == MAP
    assert cost_steps(nn.MaxPool3d((3, 1, 1), 1), frame) == [Cost(pools=MAP)]


def _i3d_mini_step(emitting):
    """MACs of a step from the table in co3d/zoo/specs.py: 48 pixels, width 8."""

    def block(width, inner, out, kernel, size, stride):
        # the first convolution precedes the stride, the projection is where the size changes
        after = (size // stride) ** 2
        first = width * inner * kernel * size**2
        rest = (9 * inner * inner + inner * out) * after
        return first + rest + (width * out * after if width != out else 0)

    stem = 3 * 8 * 5 * 7 * 7 * 24**2
    total = stem + block(8, 8, 32, 3, 12, 1)
    if emitting:  # what is behind the max-pool over two frames
        total += block(32, 16, 64, 3, 12, 2) + block(64, 16, 64, 1, 6, 1)
        total += block(64, 32, 128, 3, 6, 2) + block(128, 32, 128, 1, 3, 1)
        total += 128 * 12
    return total


def test_a_strided_net_by_hand():
    model, frame = co3d.create("coi3d_mini"), torch.zeros(1, 3, 48, 48)
    steps = [_i3d_mini_step(emitting) for emitting in (False, True)]
    assert sorted(cost.macs for cost in cost_steps(model, frame)) == steps
    assert complexity.macs_step(model, frame) == steps[1]
    assert complexity.macs_frame(model, frame) == sum(steps) / 2
    row = sizes.row("coi3d_mini")
    assert (row["macs_step"], row["macs_frame"]) == (steps[1], sum(steps) / 2)
    assert row["window_sum"] == 128 * 16 / 2


@pytest.mark.parametrize("name", ["x3d_mini", "i3d_mini", "slowfast_mini", "r2plus1d_mini"])
def test_counts_without_memory_equal_those_of_a_real_clip(name):
    model, clip = co3d.create(name), torch.zeros(1, 3, 16, 48, 48)
    real = FlopCountAnalysis(model, clip)
    real.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    counted = real.by_operator()
    assert complexity.macs_clip(model, clip) == counted["conv"] + counted["linear"]


@pytest.mark.parametrize("name", ["coi3d_mini", "slow_8x8_r50", "cox3d_s"])
def test_rows_are_those_of_the_table(name):
    table = report.read("models")
    columns = [column for column in table if column in TABLES["models"].own]
    expected = table.loc[table["model"] == name, columns].reset_index(drop=True)
    rows = pd.DataFrame(list(sizes.rows([name])))[columns]
    order = ["window", "frames", "num_classes", "dense"]
    rows = rows.sort_values(order).astype(expected.dtypes).reset_index(drop=True)
    expected = expected.sort_values(order).reset_index(drop=True)
    pd.testing.assert_frame_equal(rows, expected, check_exact=True)


def test_the_window_costs_no_more_than_its_sum():
    size = co3d.spec("coslowfast_mini").image_size
    model = co3d.create("coslowfast_mini", window=64)
    costs = cost_steps(model, torch.empty(1, 3, size, size))
    wide = sizes.row("coslowfast_mini", window=64)
    assert wide["window_sum"] == max(cost.window_sum for cost in costs)
    assert wide["flops_paper_step"] == max(cost.published for cost in costs)
