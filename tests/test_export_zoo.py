"""Every continual net of the zoo at its full depth, on small frames."""

import pytest
import torch
from test_export import agree

import co3d
from co3d.export import Runner, export
from co3d.measure.equivalence import calibrate

FULL = [name for name in co3d.list_models() if name.startswith("co") and "mini" not in name]


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL)
def test_a_full_net_equals_torch_over_warm_up_and_all_phases(tmp_path, name):
    torch.manual_seed(0)
    record = co3d.spec(name)

    net = co3d.create(name)
    calibrate(net, torch.randn(1, 3, max(record.frames, net.window), 64, 64))
    tolerance = 3e-4 if name == "cox3d_l" else 1e-4
    for suffix in (".onnx", ".xml"):
        example = torch.randn(1, 3, 64, 64)
        files = export(net, tmp_path / f"net{suffix}", example)
        runner = Runner(files[0], threads=1)
        agree(net, runner, net.warmup + 2 * net.stride, tolerance=tolerance)
        for file in files:
            file.unlink()
