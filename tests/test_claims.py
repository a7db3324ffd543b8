"""Every claim, figure and table has its row; a status follows from values; files are in line."""

import shlex
import shutil
import tomllib

import pandas as pd
import pytest

from co3d import report
from co3d.__main__ import cli
from co3d.paths import repo_root
from co3d.report import claims, notebooks, readme
from co3d.zoo.specs import SPECS

PAPER = repo_root() / "results" / "paper"


def tables():
    return {name: report.read(name) for name in claims.TABLES}


def ledger(**tables):
    return claims.ledger(**tables).set_index("id")


@pytest.fixture(scope="module")
def rows():
    return ledger(**tables())


@pytest.mark.parametrize(
    ("printed", "ours", "status"),
    [
        ("166565305", 166565305, "exact"),
        ("166565305", 166565306, "measured and differs"),
        ("2.06", 2.0649, "within rounding"),
        ("2.06", 2.0651, "measured and differs"),
        ("0.5", 0.4500001, "within rounding"),
        ("69", 69.0, "exact"),
        ("-6.3", -6.28, "within rounding"),
    ],
)
def test_a_status_follows_from_the_two_values(printed, ours, status):
    assert claims.verdict(printed, ours) == status


def test_a_tolerance_is_not_rounding_and_a_derived_number_is_not_published():
    assert claims.verdict("0", 1e-11, tolerance=1e-10) == "within rounding"
    assert claims.verdict("0", 1e-9, tolerance=1e-10) == "measured and differs"
    assert claims.verdict("5", 5, derived=True) == "agrees with our derivation"
    assert claims.verdict("5", 6, derived=True) == "measured and differs"


def test_every_claim_table_and_row_of_the_benchmark_has_its_row(rows):
    abstract = rows.index[rows["where"] == "abstract"].str.partition("-").get_level_values(0)
    assert set(abstract) == set(pd.read_csv(PAPER / "claims_abstract.csv")["id"])
    files = {path.name for path in PAPER.glob("*.csv")} - {"claims.csv"}
    assert files == set(rows["source"]) - {""}
    for row in pd.read_csv(PAPER / "kinetics400_published.csv").itertuples():
        number = row.window if row.mode == "stream" else row.frames
        line = rows.loc[f"gflops-{row.model}-{number:.0f}"]
        assert line["published"] == f"{row.gflops_per_prediction:.2f}"
        assert rows.loc[f"params-{row.model}", "published"] == f"{row.params_millions:.2f}"
        assert line["status"] == ("within rounding" if row.model in SPECS else "not available")


def test_numbers_typed_into_the_claims_are_those_of_the_published_tables(rows):
    abstract = pd.read_csv(PAPER / "claims_abstract.csv").set_index("id")["claim"]
    for id in ("A3-rounded", "A4", "A5"):
        assert rows.loc[id, "published"] in abstract[id[:2]]
    curves = pd.read_csv(PAPER / "transient_published.csv").query("fill == 'zeros'")
    published = rows.loc["transient-shape", "published"]
    for model, name in (("cox3d_s", "CoX3D-S"), ("cox3d_m", "CoX3D-M")):
        curve = curves[curves["model"] == model].set_index("frames_seen")["top1_percent"]
        peak = f"{name} {curve.max():.1f} % at frame {curve.idxmax()}"
        assert f"{peak}, {curve.iloc[-1]:.1f} % at the end" in published


def test_entries_have_no_unknown_fields():
    document = tomllib.loads((PAPER / "claims.toml").read_text("utf-8"))
    known = {*document["default"], "id", "where", "claim", "table"}
    assert all(known >= entry.keys() >= {"id", "where", "table"} for entry in document["claim"])


def test_rows_are_complete_and_say_how_to_compute_them(rows):
    assert list(rows.reset_index()) == claims.COLUMNS
    assert not rows.map(lambda text: "|" in text or "\n" in text or "nan" in text).any(axis=None)
    closed, open_ = (rows["status"] == name for name in ("not available", "needs data"))
    assert ((rows["ours"] == "") == (closed | open_)).all()
    assert (rows.loc[closed, ["notebook", "command"]] == "").all(axis=None)
    assert (rows.loc[~closed, ["published", "notebook", "command"]] != "").all(axis=None)
    notes = rows["status"].isin(["not available", "measured and differs", "other device"])
    assert (rows.loc[notes, "note"] != "").all()


def test_statuses_of_the_committed_results(rows):
    """Exact is only what the authors published."""
    status = rows["status"]
    exact = status.index.str.match("text-|flops-|sweep-f|bold-|exact-params")
    assert set(status[exact]) == {"exact"} and sum(status == "exact") == sum(exact)
    derived = ["concept", "exact-flops_counted_once", "exact-macs_conv_fc"]
    assert list(status.index[status == "agrees with our derivation"]) == derived
    assert set(status[["table-memory", "A2-memory", "A8"]]) == {"other device"}
    assert "not yet" not in set(status)


def test_another_count_changes_the_status():
    models = tables()["models"]
    models.loc[(models["model"] == "x3d_s") & (models["frames"] == 13), "flops_paper_clip"] += 1
    models.loc[models["model"] == "x3d_m", "params"] += 10_000
    models.loc[(models["model"] == "cox3d_l") & (models["window"] == 16), "warmup"] += 1
    rows = ledger(models=models)
    assert rows.loc["sweep-flops", "note"] == "not X3D-S, a clip of 13 frames"
    assert rows.loc["exact-params", "note"] == "not X3D-M, a clip of 16 frames"
    changed = ["flops-x3d_s-13", "text-warmup", "params-x3d_m", "sweep-flops"]
    assert set(rows.loc[changed, "status"]) == {"measured and differs"}
    assert rows.loc["gflops-x3d_s-13", "status"] == "within rounding"


def test_what_has_no_row_is_not_yet():
    models = tables()["models"]
    rows = ledger(models=models[models["model"] != "cox3d_m"])
    for id in ("A3-once", "A2-flops", "params-cox3d_m", "text-padding", "sweep-flops", "A1", "A8"):
        assert rows.loc[id, ["ours", "status"]].tolist() == ["", "not yet"]
    other = models.assign(dense=1)
    pd.testing.assert_frame_equal(ledger(models=other), ledger(models=models[:0]))


def test_weights_are_reused_if_every_published_stream_equals_its_clip_net():
    same = tables()["equivalence"]
    stream = (same["model"] == "coslow_8x8_r50") & (same["claim"] == "stream = clip")
    same.loc[stream, "max_rel_diff"] = 1e-9
    row = ledger(equivalence=same).loc["A1", ["ours", "status", "note"]]
    assert row.tolist() == ["4 agree", "measured and differs", "not CoSlow"]


def test_what_is_measured_on_a_device_of_the_paper_is_compared():
    rows = ledger(benchmark=tables()["benchmark"].assign(device="Intel Core i7"))
    assert set(rows.loc[["table-memory", "A2-memory", "A8"], "status"]) == {"measured and differs"}


def test_an_evaluation_fills_the_rows_that_need_data():
    """Made accuracies: that of X3D-S is the published one, that of CoX3D-S at 64 another."""
    row = tables()["accuracy"].iloc[0].to_dict() | {"dataset": "kinetics400", "protocol": "paper"}
    row |= {"limit": 0, "views": 1, "crops": 1}
    clip = row | {"model": "x3d_s", "mode": "clip", "window": pd.NA, "frames": 13, "top1": 64.71}
    stream = row | {"model": "cox3d_s", "mode": "stream", "window": 64, "frames": 92, "top1": 67.0}
    views = [clip | {"protocol": "native", "views": n, "crops": 1, "top1": 50.0} for n in (1, 10)]
    accuracy = pd.DataFrame([clip, stream, *views]).astype({"window": "Int64"})
    rows = ledger(accuracy=accuracy)
    line = rows.loc["table-top1", ["ours", "status", "note"]]
    assert line.tolist() == [
        *("1 of 2 agree", "measured and differs", "not CoX3D-S, a step at window 64"),
    ]
    views = rows.loc["multiview-top1", ["published", "ours", "note"]]
    assert views.tolist() == [
        *("12 values, 54.68-74.92 %", "0 of 2 agree", "not X3D-S, a clip of 13 frames"),
    ]
    assert rows.loc["A2-accuracy-64", "status"] == "measured and differs"  # 2.3 points, not 2.6
    assert rows.loc[["A4", "A2-accuracy-native"], "status"].tolist() == ["needs data"] * 2


def parsed(line):
    """The subcommand and the options of each command of a line."""
    for command in line.split(" && "):
        program, subcommand, *arguments = shlex.split(command)
        assert program == "co3d"
        yield subcommand, cli.commands[subcommand].make_context(subcommand, arguments).params


def test_commands_are_real(rows):
    rows = rows[rows["command"] != ""]
    for line, notebook in set(rows[["command", "notebook"]].itertuples(index=False, name=None)):
        for subcommand, given in parsed(line):
            assert subcommand != "reproduce" or notebooks.select(given["only"]) == [notebook]


def test_the_commands_that_need_data_read_every_published_row(rows):
    """But for RCU, which is not built here."""
    published = pd.read_csv(PAPER / "kinetics400_published.csv").query("model != 'rcu'")
    numbers = published["window"].fillna(published["frames"]).astype(int)
    read = set()
    for _, given in parsed(rows.loc["table-top1", "command"]):
        names = list(SPECS) if given["names"] == "all" else given["names"].split(",")
        for record in map(SPECS.get, names):
            spans = given["windows"] if record.continual else (given["frames"],)
            read |= {(record.name, span or record.window or record.frames) for span in spans or [0]}
    assert set(zip(published["model"], numbers, strict=True)) <= read
    ((_, given),) = parsed(rows.loc["sweep-top1", "command"])
    swept = pd.read_csv(PAPER / "pool_sweep_published.csv").query("mode == 'stream'")
    windows = {int(window) for window in dict(given["pairs"])["windows"].split()[1:]}
    assert all(row.window in {*windows, SPECS[row.model].window} for row in swept.itertuples())


def test_the_committed_ledger_follows_from_the_committed_results(rows, tmp_path):
    path = claims.save(rows.reset_index()[claims.COLUMNS], tmp_path)
    assert path.read_text("utf-8") == (PAPER / "claims.csv").read_text("utf-8"), "run `co3d update`"


def test_refresh_writes_the_ledger_and_the_counts_and_nothing_else(tmp_path):
    shutil.copytree(PAPER, tmp_path / "results" / "paper")
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- claims -->\nold\n<!-- /claims -->\nafter\n")
    claims.refresh(tmp_path)
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    written = pd.read_csv(tmp_path / "results/paper/claims.csv", keep_default_na=False)
    text = readme.read_text()
    assert text.startswith("before\n<!-- claims -->\n")
    assert text.endswith("<!-- /claims -->\nafter\n") and "old" not in text
    for status, count in written["status"].value_counts().items():
        assert f"| {status} | {count} |" in text
    claims.refresh(tmp_path)
    assert files == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_a_run_s_ledger_is_compared_with_the_committed_one(tmp_path, rows):
    one, other = tmp_path / "one", tmp_path / "other"
    table = rows.reset_index()
    claims.save(table, one)
    assert claims.compare(one, other) == ""
    claims.save(table, other)
    assert claims.compare(one, other).endswith(" rows, not as committed: none")
    claims.save(table.assign(ours=table["ours"].mask(table["id"] == "A5", "48")), one)
    assert claims.compare(one, other).endswith(": A5")


def test_a_readme_without_its_marks_is_named():
    with pytest.raises(ValueError, match="lacks the marks <!-- claims -->"):
        readme.with_block("no marks", "claims", "")
