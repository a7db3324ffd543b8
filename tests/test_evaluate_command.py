"""co3d evaluate: what it prints, writes and refuses, and the commands that the README names."""

import csv
import re
import shlex
from functools import partial

import pytest
import servers
from nets import clip_net
from servers import says, serve
from test_archives import tar
from test_sets_rows import frames

import co3d
from co3d import __main__ as command_line
from co3d import report, web
from co3d.data import download, synthetic, synthetic_charades, video
from co3d.measure import protocols
from co3d.paths import repo_root
from co3d.report import readme
from co3d.zoo import checkpoints

N = 4


@pytest.fixture
def run(run):
    return partial(run, "evaluate")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache with a few generated videos."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CACHE_PATH", str(folder))
        synthetic.dataset("test", limit=N, progress=False)
        synthetic_charades.dataset("test", limit=2, progress=False)
    return folder


@pytest.fixture(autouse=True)
def places(cache, monkeypatch, tmp_path):
    monkeypatch.setenv("CACHE_PATH", str(cache))
    monkeypatch.setenv("LOGS_PATH", str(tmp_path / "runs"))
    monkeypatch.setenv("DATASETS_PATH", str(tmp_path / "data"))


SMALL = ("synthetic-kinetics", "--limit", N, "--models")


def lines_of(shown):
    """The rows of the table, as words."""
    lines = [line.split() for line in shown.splitlines()]
    return [line for line in lines if line[0] in co3d.list_models()]


def test_a_run_is_printed_written_and_not_done_twice(run, tmp_path, inline):
    table = tmp_path / "rows.csv"
    options = ("--controls", "--window", 16, "--window", 32, "--csv", table)
    code, shown, _ = run(*SMALL, "x3d_mini,cox3d_mini", *options)
    assert code == 0
    modes = [line[:3] for line in lines_of(shown)]
    steady = [["cox3d_mini", "steady", "stream"], ["x3d_mini", "steady", "clips"]]
    assert modes == [["x3d_mini", "native", "clip"], *steady, *steady]
    assert "a part of synthetic-kinetics: not its accuracy, and in none of its figures" in shown
    assert f"predictions by status: ok {5 * N}" in shown and "time per video: " in shown
    written = report.read("accuracy", tmp_path / "runs" / "interactive")
    mine = written[(written["limit"] == N) & (written["dataset"] == "synthetic-kinetics")]
    assert sorted(mine["frames"]) == [16, 32, 32, 48, 48] and set(mine["commit"]) != {""}
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["window"] for row in rows] == ["", "16.0", "", "32.0", ""]
    assert {row["n_scored"] for row in rows} == {str(N)} and {row["limit"] for row in rows} == {"4"}
    assert not list(tmp_path.glob("*.part"))
    code, again, _ = run(*SMALL, "x3d_mini,cox3d_mini", *options)
    assert code == 0 and "time per video" not in again
    assert lines_of(again) == lines_of(shown)


def test_several_labels_have_both_definitions(run, inline):
    code, shown, _ = run("synthetic-charades", "--limit", 2, "--models", "slow_mini")
    head = shown.splitlines()[0].split()
    assert code == 0 and "top1" not in head
    assert {"map_official", "map_common", "ci_low"} <= set(head)


def test_a_plan_is_printed_and_nothing_run(run, tmp_path):
    code, shown, _ = run(*SMALL, "x3d_mini,cox3d_mini", "--plan")
    assert code == 0 and not (tmp_path / "runs").exists()
    lines = shown.splitlines()
    assert len(lines) == 3 * N and "128 frames, 15 per second" in lines[0]
    assert lines[1:3] == [
        "  x3d_mini, native, clip: view 1 of 1: 16 of 128 frames: 56..71 by 1",
        "  cox3d_mini, steady, stream: view 1 of 1: 32 of 128 frames: 0..31 by 1",
    ]


WRONG = {
    "no such set": (["kinetics600", "--models", "x3d_mini"], "expected kinetics400, charades, "),
    "no weights at all": ([*SMALL, "all", "--weights", "ucf"], "no weights of ucf are known"),
    "of clips": (
        [*SMALL, "cox3d_mini", "--protocol", "native"],
        "expected protocol paper or first-valid or steady for the stream net cox3d_mini, given n",
    ),
    "fill": ([*SMALL, "x3d_mini", "--fill", "zeros"], "expected no fill where no stream is read"),
    "parts": ([*SMALL, "x3d_mini", "--parts", "1"], "expected --parts of kinetics400 alone, and "),
    "position": ([*SMALL, "x3d_mini", "--position", "2"], "'--position'"),
    "device": ([*SMALL, "x3d_mini", "--device", "no"], "device 'no' cannot be used"),
    "csv": ([*SMALL, "x3d_mini", "--csv", "no/such/folder.csv"], "name a file in an existing fo"),
    "not there": (["charades", "--models", "slow_8x8_r50"], "co3d download charades"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_line(run, case, tmp_path):
    arguments, sentence = WRONG[case]
    code, shown, error = run(*arguments)
    assert code == 2 and shown == "" and not (tmp_path / "runs").exists()
    assert error.startswith("co3d: ") and error.count("\n") == 1 and sentence in error


def saved(path, classes):
    """Weights of as many classes, as `co3d train` leaves them."""
    origin = {"training_data": "made", "source": "a test", "licence": "none"}
    checkpoints.save(clip_net(0, classes), path, **origin)
    return path


ROWS = [("abseiling", "aaaaaaaaaaa"), ("zumba", "bbbbbbbbbbb"), ("zumba", "ccccccccccc")]


@pytest.fixture
def server(monkeypatch, tmp_path):
    """Two archives of Kinetics-400: of two planned videos and another one, and of one more."""
    monkeypatch.setattr(web, "TIMEOUT_S", 5)
    made = {}
    for n, name in enumerate("abcx"):
        path = tmp_path / f"{name}.mp4"
        video.write(path, frames(n, 20), 15)
        made[name] = (f"./{name * 11}_000000_000010.mp4", path.read_bytes())
    table = "label,youtube_id,time_start,time_end,split,is_cc\n"
    table += "".join(f"{label},{name},0,10,val,0\n" for label, name in ROWS)
    with servers.running() as server:
        monkeypatch.setattr(download, "BASES", dict.fromkeys(download.BASES, server.url))
        parts = [f"{server.url}/val/part_{n}.tar.gz" for n in range(2)]
        site = {
            "/val/k400_val_path.txt": "\n".join(parts).encode(),
            "/annotations/val.csv": table.encode(),
            "/val/part_0.tar.gz": tar(dict([made["a"], made["b"], made["x"]])),
            "/val/part_1.tar.gz": tar(dict([made["c"]])),
        }
        server.answer = lambda handler: (
            serve(site[handler.path]) if handler.path in site else says(404)
        )(handler)
        yield server


def test_parts_are_fetched_and_never_pass_for_the_set(run, server, tmp_path, inline):
    weights = saved(tmp_path / "x3d_mini_400.safetensors", 400)
    options = ("--models", "x3d_mini", "--weights", weights, "--protocol", "native")
    table = tmp_path / "rows.csv"
    code, shown, error = run("kinetics400", "--parts", 1, *options, "--csv", table)
    assert code == 0, error
    assert "CC BY 4.0" in shown.splitlines()[0]
    assert "a part of kinetics400: not its accuracy, and in none of its figures" in shown
    assert "predictions/kinetics400-parts-1-val" in shown
    with table.open() as file:
        (row,) = csv.DictReader(file)
    assert row["dataset"] == "kinetics400-parts-1"
    assert [row[name] for name in ("n_expected", "n_found", "n_scored")] == ["2"] * 3
    assert not [path for _, path, _ in server.asked if "part_1" in path]
    server.asked.clear()
    code, again, _ = run("kinetics400", "--parts", 1, *options)
    assert code == 0 and not server.asked and lines_of(again) == lines_of(shown)
    code, shown, _ = run("kinetics400", *options)  # the set itself, of which a part is there
    assert code == 0 and "a part of" not in shown
    (row,) = lines_of(shown)
    assert row[row.index("clip") + 1 :][3:6] == ["3", "2", "2"]


def test_the_commands_of_readme_and_ledger_are_understood():
    text = (repo_root() / "README.md").read_text("utf-8") + readme.models()
    with (repo_root() / "results/paper/claims.csv").open() as file:
        text += "\n".join(row["command"] for row in csv.DictReader(file))
    commands = set(re.findall(r"co3d evaluate (\w+400 [^`\n|&]+|charades[^`\n|]*)", text))
    assert len(commands) >= 10 and any("--parts 1" in command for command in commands)
    for arguments in map(shlex.split, commands):
        given = command_line.cli.commands["evaluate"].make_context("evaluate", arguments).params
        models = [name for name in given["names"].split(",") if name != "all"]
        for name in models:
            fitting = given["protocols"] or protocols.usual(given["dataset"])
            assert not all(
                protocols.misfit(co3d.spec(name), given["dataset"], one) for one in fitting
            )
            trained = co3d.spec(name).checkpoint(given["dataset"]) is not None
            assert trained or given["dataset"] in checkpoints.shipped(name)
