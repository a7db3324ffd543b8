"""Every claim, figure and table has its row; a status follows from values; files are in line."""

import shlex
import shutil
from decimal import ROUND_HALF_UP, Decimal

import pandas as pd
import pytest

from co3d import report
from co3d.__main__ import cli
from co3d.paths import repo_root
from co3d.report import claims, entries, notebooks, readme
from co3d.zoo.specs import SPECS

PAPER = repo_root() / "results" / "paper"
FIELDS = {"cox3d_s": (69, 28), "cox3d_m": (72, 28), "cox3d_l": (130, 57)}


@pytest.fixture
def models():
    """The models table as the published exact counts would have it."""
    exact = pd.read_csv(PAPER / "flops_exact.csv")
    rows = []
    for row in exact.itertuples():
        stream = row.window == row.window
        same = {"model": row.model, "image_size": row.image_size, "num_classes": 400, "dense": 0}
        same |= {"params": row.params}
        flops = row.flops_published_convention
        macs = row.macs_conv_fc if row.macs_conv_fc > 0 else flops  # blank for SlowFast
        if not stream:
            counts = {"frames": row.frames, "macs_clip": macs, "flops_paper_clip": flops}
            rows.append({**same, **counts})
            continue
        field, padding = FIELDS.get(row.model, (50, 9))
        for window in (int(row.window), 64):
            reach = field + window - int(row.window)
            counts = {"macs_step": macs, "macs_frame": macs, "flops_paper_step": flops}
            counts |= {"flops_once_step": row.flops_counted_once, "window_sum": 432 * window}
            counts |= {"receptive_field": reach, "padding": padding, "warmup": reach - padding - 1}
            rows.append({**same, "window": window, **counts})
    table = pd.DataFrame(rows)
    return table.astype(dict.fromkeys(set(table) - {"model"}, "Int64"))


def committed():
    return claims.ledger(**{name: report.read(name) for name in claims.TABLES})


@pytest.fixture
def rows(models):
    return claims.ledger(models).set_index("id")


@pytest.mark.parametrize(
    ("printed", "ours", "status"),
    [
        (["2.06"], [Decimal("2.06")], "exact"),
        (["166565305"], [166565305], "exact"),
        (["166565305"], [166565306], "measured and differs"),
        (["2.06"], [2.0649], "within rounding"),
        (["2.06"], [2.0651], "measured and differs"),
        (["0.5"], [Decimal("0.45")], "within rounding"),
        (["12.1", "15.3"], [12.12, 15.34], "within rounding"),
        (["12.1", "15.3"], [12.12, 15.36], "measured and differs"),
        (["69", "72"], [69, 72.0], "exact"),
        (["69", "72"], [69, None], "not yet"),
    ],
)
def test_a_status_follows_from_the_values(printed, ours, status):
    assert entries.verdict(printed, ours) == status


def test_every_claim_table_and_row_of_the_benchmark_has_its_row(rows):
    abstract = pd.read_csv(PAPER / "claims_abstract.csv")
    assert set(abstract["id"]) == {
        id.split("-")[0] for id in rows.index[rows["where"] == "abstract"]
    }
    files = {path.name for path in PAPER.glob("*.csv")} - {"claims.csv"}
    assert files == set(rows["source"]) - {""}
    published = pd.read_csv(PAPER / "kinetics400_published.csv")
    for row in published.itertuples():
        number = row.window if row.mode == "stream" else row.frames
        assert rows.loc[f"gflops-{row.model}-{number:.0f}", "published"]
        assert rows.loc[f"params-{row.model}", "published"] == f"{row.params_millions:.2f}"
    for row in pd.read_csv(PAPER / "flops_exact.csv").itertuples():
        number = row.window if row.window == row.window else row.frames
        published = rows.loc[f"flops-{row.model}-{number:.0f}", "published"]
        assert published == str(row.flops_published_convention)
    figures = ("concept", "accuracy-vs-FLOPs", "pool sweep", "transient", "Charades", "constants")
    assert all(rows["where"].str.contains(name).any() for name in figures)


def test_rows_are_complete_and_say_how_to_compute_them(rows):
    assert set(rows["status"]) <= set(entries.STATUSES) and rows.index.is_unique
    assert list(rows.reset_index()) == list(entries.COLUMNS)
    assert (rows[["where", "claim"]] != "").all(axis=None)
    open_ = rows["status"].isin(["not yet", "not available"])
    data = rows["status"] == "needs data"
    assert (rows.loc[data, ["notebook", "command"]] != "").all(axis=None)
    assert (rows.loc[data, "ours"] == "").all()
    rows = rows[~data]
    open_ = open_[~data]
    assert (rows.loc[open_, ["ours", "notebook", "command"]] == "").all(axis=None)
    assert (rows.loc[~open_, ["published", "ours", "notebook", "command"]] != "").all(axis=None)
    assert (rows.loc[rows["status"] == "not available", "note"] != "").all()
    assert (rows.loc[rows["status"] == "measured and differs", "note"] != "").all()


def test_commands_of_the_committed_ledger_are_real():
    table = committed()
    done = table[table["command"] != ""]
    for line, notebook in set(done[["command", "notebook"]].itertuples(index=False, name=None)):
        for subcommand, given in parsed(line):
            assert subcommand != "reproduce" or notebooks.select(given["only"]) == [notebook]


def parsed(line):
    """The subcommand and the options of each command of a line."""
    for command in line.split(" && "):
        program, subcommand, *arguments = shlex.split(command)
        assert program == "co3d"
        yield subcommand, cli.commands[subcommand].make_context(subcommand, arguments).params


def read_by(line):
    """What the evaluations of a line read: model, frames or window, views and crops."""
    for _, given in parsed(line):
        names = given["names"].split(",")
        if names == ["all"]:
            names = [name for name, record in SPECS.items() if record.checkpoint("kinetics400")]
        for record in map(SPECS.get, names):
            native = record.window if record.continual else record.frames
            spans = given["windows"] if record.continual else (given["frames"],)
            clips = (given["views"] or 10) * (given["crops"] or 3)
            yield from ((record.name, span or native, clips) for span in spans or (native,))


def test_the_commands_that_need_data_read_every_published_row(rows):
    """But for RCU, which is not built here."""
    published = pd.read_csv(PAPER / "kinetics400_published.csv")
    wanted = {(row.model, int(row.window if row.mode == "stream" else row.frames))
              for row in published.itertuples() if row.model in SPECS}  # fmt: skip
    for id in ("table-top1", "figure-top1"):
        assert wanted <= {(name, span) for name, span, _ in read_by(rows.loc[id, "command"])}
    several = pd.read_csv(PAPER / "x3d_multiview_published.csv")
    wanted = {(row.model, row.clips) for row in several.itertuples()}
    found = {(name, clips) for name, _, clips in read_by(rows.loc["multiview-top1", "command"])}
    assert found == wanted
    ((_, given),) = parsed(rows.loc["sweep-top1", "command"])
    swept = pd.read_csv(PAPER / "pool_sweep_published.csv").query("mode == 'stream'")
    windows = {int(window) for window in dict(given["pairs"])["windows"].split()[1:]}
    assert all(row.window in {*windows, SPECS[row.model].window} for row in swept.itertuples())


def test_what_is_published_is_shown_though_it_needs_data(rows):
    needs = rows[rows["status"] == "needs data"]
    assert (needs["published"] != "").all()
    assert rows.loc["table-top1", "published"] == "21 values, 53.40-73.05 %"
    assert rows.loc["table-memory", "claim"].endswith(", 20 values")
    assert rows.loc["A2-flops", "published"] == "in proportion (no number)"


def test_what_is_shown_rounds_to_what_is_printed(rows):
    for row in rows[rows["status"] == "within rounding"].itertuples():
        pairs = zip(*(entries.NUMBER.findall(text) for text in (row.published, row.ours)),
                    strict=True)  # fmt: skip
        for printed, ours in pairs:
            assert str(Decimal(ours).quantize(Decimal(printed), ROUND_HALF_UP)) == printed


def test_counts_that_agree_are_exact_or_within_rounding(rows):
    for id in ("text-receptive_field", "text-padding", "text-warmup", "text-window_sum"):
        assert rows.loc[id, "status"] == "exact"
        assert rows.loc[id, "ours"] == rows.loc[id, "published"]
    status = rows["status"]
    assert set(status[rows.index.str.startswith("flops-")]) == {"exact"}
    assert set(status[rows.index.str.startswith("gflops-")].drop("gflops-rcu-8")) == {
        "within rounding"
    }
    parameters = status[rows.index.str.startswith("params-")]
    assert set(parameters.drop(["params-rcu", "params-slowfast_8x8_r50"])) == {"within rounding"}
    for id in ("concept", "sweep-flops", "sweep-fields", "bold-gflops", "bold-macs"):
        assert status[id] == "exact"
    assert rows.loc["figure-flops", ["published", "ours", "status"]].tolist() == [
        *("20 values", "20 agree", "within rounding"),
    ]


def test_what_differs_is_said_with_the_reason(rows):
    assert rows.loc["A3-rounded", ["ours", "status"]].tolist() == ["12.12-15.34", "within rounding"]
    for id, ours in (("A3-unrounded", "12.38-15.39"), ("A3-once", "12.86-15.97"), ("A5", "45.46")):
        assert rows.loc[id, ["ours", "status"]].tolist() == [ours, "measured and differs"]
    assert "not measured here" in rows.loc["A5", "note"] and "23 % more" in rows.loc["A5", "note"]
    slip = rows.loc["params-slowfast_8x8_r50"]
    assert (slip["published"], slip["ours"], slip["status"]) == (
        *("66.25", "34.566", "measured and differs"),
    )
    assert "34,566,488" in slip["note"]


def test_another_count_changes_the_status(models):
    models.loc[models["model"] == "x3d_s", "flops_paper_clip"] += 1
    models.loc[models["model"] == "x3d_m", "params"] += 10_000
    models.loc[(models["model"] == "cox3d_l") & (models["window"] == 16), "warmup"] += 1
    table = claims.ledger(models).set_index("id")
    assert table.loc["sweep-flops", "note"] == "not X3D-S at 13"
    assert table.loc["exact-params", "note"] == "not X3D-M, a clip of 16 frames"
    rows = table["status"]
    assert rows["flops-x3d_s-13"] == rows["text-warmup"] == "measured and differs"
    assert rows["gflops-x3d_s-13"] == "within rounding"
    assert rows["params-x3d_m"] == rows["sweep-flops"] == "measured and differs"


def test_memory_is_measured_once_there_are_rows_and_throughput_on_other_devices(models, rows):
    """The four published devices are not here, with or without rows."""
    devices = ["table-cpu", "table-tx2", "table-xavier", "table-2080ti"]
    assert set(rows.loc[devices, "status"]) == {"not available"}
    assert set(rows.loc[["table-memory", "A2-memory", "A8"], "status"]) == {"not yet"}
    timed = {"implementation": "co3d eager", "precision": "float32", "batch": 1, "device": "A CPU"}
    timed |= {"peak_mem_mb": None}
    table = [{**timed, "model": "x3d_s", "alloc_mb": 60.0},
             {**timed, "model": "cox3d_s", "alloc_mb": 30.0},
             {**timed, "model": "x3d_mini", "alloc_mb": 1.0}]  # fmt: skip
    rows = claims.ledger(models, benchmark=pd.DataFrame(table)).set_index("id")
    assert rows.loc["table-memory", ["published", "ours", "status"]].tolist() == [
        *("29-345 MiB", "30-60 MB, 2 networks", "measured and differs"),
    ]
    assert (
        rows.loc["A2-memory", "ours"].startswith("0.50")
        and "CoX3D-S 0.50" in (rows.loc["A2-memory", "note"])
    )
    assert rows.loc["A8", "ours"] == "2 networks on A CPU"
    assert set(rows.loc[devices, "status"]) == {"not available"}
    test_rows_are_complete_and_say_how_to_compute_them(rows)


def test_what_has_no_row_is_not_yet(models):
    rows = claims.ledger(models[models["model"] != "cox3d_m"]).set_index("id")
    for id in ("A3-once", "A2-flops", "params-cox3d_m", "text-padding", "sweep-flops"):
        assert rows.loc[id, ["ours", "status"]].tolist() == ["", "not yet"]
        assert "models.csv" in rows.loc[id, "note"]
    none = claims.ledger(models[:0])
    assert len(none) == len(rows)
    other = models.assign(dense=1), models.assign(num_classes=157), models.assign(image_size=64)
    for table in other:
        pd.testing.assert_frame_equal(claims.ledger(table), none)


def test_the_committed_ledger_follows_from_the_committed_results(tmp_path):
    path = claims.save(committed(), tmp_path)
    text = (PAPER / "claims.csv").read_text("utf-8")
    assert path.read_text("utf-8") == text, "run `co3d update`"


def test_no_claim_is_left_open():
    rows = committed()
    assert list(rows.loc[rows["status"] == "not yet", "id"]) == []


def test_weights_are_reused_if_every_published_stream_equals_its_clip_net(models):
    same = report.read("equivalence")
    row = claims.ledger(models, equivalence=same).set_index("id").loc["A1"]
    assert row[["published", "ours", "status"]].tolist() == [
        *("5 networks", "5 agree", "within rounding"),
    ]
    assert row["notebook"] == "02_equivalence" and "random weights" in row["note"]
    off = same.copy()
    off.loc[(off["model"] == "coslow_8x8_r50") & (off["claim"] == "stream = clip"),
            "max_rel_diff"] = 1e-9  # fmt: skip
    row = claims.ledger(models, equivalence=off).set_index("id").loc["A1"]
    assert row[["ours", "status"]].tolist() == ["4 agree", "measured and differs"]
    fewer = same[same["model"] != "cox3d_m"]
    row = claims.ledger(models, equivalence=fewer).set_index("id").loc["A1"]
    assert row[["ours", "status"]].tolist() == ["", "not yet"]
    assert "equivalence.csv" in row["note"]


def test_every_model_of_the_benchmark_is_counted_once_there_are_counts():
    models = report.read("models")
    if models.empty:
        pytest.skip("results/models.csv does not exist yet: notebook 03 writes it")
    rows = claims.ledger(models).set_index("id")
    for row in pd.read_csv(PAPER / "kinetics400_published.csv").itertuples():
        if row.model in SPECS:
            number = row.window if row.mode == "stream" else row.frames
            assert rows.loc[f"gflops-{row.model}-{number:.0f}", "status"] == "within rounding"


@pytest.fixture
def root(tmp_path):
    """A repository with published tables, no results, and a README."""
    shutil.copytree(PAPER, tmp_path / "results" / "paper")
    (tmp_path / "results" / "paper" / "claims.csv").unlink()
    (tmp_path / "README.md").write_text("before\n<!-- claims -->\nold\n<!-- /claims -->\nafter\n")
    return tmp_path


def test_refresh_writes_the_ledger_and_the_counts_and_nothing_else(root):
    claims.refresh(root)
    files = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    table = pd.read_csv(PAPER.parent.parent / "results/paper/claims.csv")
    written = pd.read_csv(root / "results/paper/claims.csv", keep_default_na=False)
    assert len(written) == len(table) and set(written["status"]) <= set(entries.STATUSES)
    text = (root / "README.md").read_text()
    assert text.startswith("before\n<!-- claims -->\n") and text.endswith(
        "<!-- /claims -->\nafter\n"
    )
    assert "old" not in text
    for status, count in claims.statuses(written).items():
        assert (f"| {status} | {count} |" in text) == (count > 0)
    claims.refresh(root)
    assert files == {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_run_s_ledger_is_compared_with_the_committed_one(tmp_path, models):
    one, other = tmp_path / "one", tmp_path / "other"
    claims.save(claims.ledger(models), one)
    assert claims.compare(one, other) == ""
    claims.save(claims.ledger(models), other)
    assert claims.compare(one, other).endswith(" rows, not as committed: none")
    models.loc[models["model"] == "x3d_m", "params"] += 1
    claims.save(claims.ledger(models), one)
    assert claims.compare(one, other).endswith(": exact-params")


def test_update_refreshes_the_ledger(root, monkeypatch):
    (root / "run").mkdir()
    monkeypatch.setattr(notebooks, "repo_root", lambda: root)
    monkeypatch.setattr(notebooks, "execute", lambda *_: (root / "run", []))
    with (root / "README.md").open("a") as file:
        file.write("<!-- models -->\n<!-- /models -->\n")
    notebooks.update()
    assert (root / "results" / "paper" / "claims.csv").exists()
    assert f"-->\n\n{readme.models()}\n<!--" in (root / "README.md").read_text()


def test_a_readme_without_its_marks_is_named(models):
    with pytest.raises(ValueError, match="lacks the marks <!-- claims -->"):
        readme.with_block("no marks", "claims", claims.summary(claims.ledger(models)))


def test_the_ledger_for_people_shows_every_row(rows):
    shown = claims.markdown(rows.reset_index())
    lines = [line for line in shown.splitlines() if line.startswith("| ")]
    heads = rows["where"].nunique()
    assert len(lines) == len(rows) + 2 * heads
    for row in rows.itertuples():
        assert f"| {row.claim} |" in shown and f"**{row.where}**" in shown
    assert not rows.map(lambda text: "|" in text or "\n" in text).any(axis=None)
