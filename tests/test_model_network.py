"""The network as deployed: normalisation, receptive field, export and parity."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from livestain._stain import OnnxModel
from livestain_models.contract import Output, Planes
from livestain_models.export import export_onnx, parity, precise_batchnorm
from livestain_models.package import verify_package, write_package
from livestain_models.unet import Deployed, LocalContrast, UNet
from tests.model_builders import contract

OUTPUTS = (Output(name="Nuclei", meaning="x"), Output(name="Membrane", meaning="y"))


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Small tensors gain nothing from more, and on a busy machine OpenMP's threads wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def deployed(planes=1, stains=1, base=16):
    """An untrained network that is not trivial: BatchNorm away from the identity, outputs within range."""
    torch.manual_seed(0)
    net = UNet(planes, stains, base)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 2.0)
    nn.init.constant_(net.head.bias, 0.7)
    return Deployed(net, LocalContrast()).eval()


def cells(planes=1, height=256, width=320, level=1000):
    """Blobs on a vignetted background, with shot noise."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:height, :width]
    light = 1 - 0.3 * ((y / height - 0.5) ** 2 + (x / width - 0.5) ** 2)
    for _ in range(20):
        cy, cx, size = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(4, 12)
        light = light * (1 - 0.2 * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * size**2)))
    return rng.poisson(light * level, (1, planes, height, width)).astype(np.uint16)


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """Three planes in, two stains out."""
    model = deployed(planes=3, stains=2, base=4)
    promise = contract(
        outputs=OUTPUTS,
        planes=Planes(count=3, spacing_um=1.0),
        multiple_px=model.multiple_px,
        halo_px=model.halo_px,
    )
    file = tmp_path_factory.mktemp("export") / "weights.onnx"
    export_onnx(model, promise, file)
    return model, promise, file


@pytest.mark.parametrize("lamp", [0.25, 2.0, 4.0])
def test_brightness_of_the_lamp_drops_out(lamp):
    planes = torch.from_numpy(cells().astype(np.float32))
    normalise = LocalContrast()
    assert torch.allclose(normalise(planes * lamp), normalise(planes), atol=1e-4)


def test_flat_and_black_frames_become_zero():
    normalise = LocalContrast()
    for grey in (0.0, 1.0, 30000.0, 65535.0):
        assert normalise(torch.full((1, 1, 64, 96), grey)).abs().max() <= (10.0 if grey == 0 else 1e-3)
    black = normalise(torch.zeros(1, 1, 64, 64))
    assert torch.isfinite(black).all()
    assert black.abs().max() <= normalise.limit


def test_planes_are_normalised_each_on_its_own():
    planes = torch.from_numpy(cells(planes=2).astype(np.float32))
    both = LocalContrast()(planes)
    assert torch.equal(both[:, :1], LocalContrast()(planes[:, :1]))


@pytest.mark.parametrize(("planes", "stains", "height", "width"), [(1, 1, 16, 16), (3, 2, 48, 80), (13, 3, 32, 16)])
def test_shapes_and_types(planes, stains, height, width):
    frames = torch.randint(0, 65536, (1, planes, height, width), dtype=torch.int32).to(torch.uint16)
    with torch.no_grad():
        out = deployed(planes, stains, base=4)(frames)
    assert out.shape == (1, stains, height, width)
    assert out.dtype == torch.uint16


def test_no_pixel_reaches_beyond_the_halo():
    model = deployed(base=4).double()

    def stain(planes):
        with torch.no_grad():
            return model.net(model.normalise(planes))[0, 0]

    planes = 1000 + 100 * torch.rand(1, 1, 512, 512, dtype=torch.float64)
    before = stain(planes)
    reach = 0
    for at in range(240, 272, 5):  # every place within a cell of the grid matters
        changed = planes.clone()
        changed[0, 0, at, at] *= 100
        moved = (stain(changed) - before).abs() > 1e-12
        reach = max(reach, int((moved.nonzero() - at).abs().max()))
    assert model.halo_px - 2 * model.multiple_px < reach <= model.halo_px


def test_precise_batchnorm_is_the_average_over_batches():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    batches = [torch.randn(4, 1, 8, 8) * scale for scale in (1, 2, 3)]
    precise_batchnorm(net, batches)
    with torch.no_grad():
        means = torch.stack([net[0](batch).mean((0, 2, 3)) for batch in batches])
    assert torch.allclose(net[1].running_mean, means.mean(0), atol=1e-6)
    assert not net.training
    assert net[1].momentum == 0.1


def test_torch_and_onnxruntime_agree_at_every_size(exported):
    model, _, file = exported
    noise = np.random.default_rng(0).integers(0, 65536, (1, 3, 64, 48), dtype=np.uint16)
    before = copy.deepcopy(model.state_dict())
    difference = parity(model, file, [cells(3), noise, noise[:, :, :16, :32]])
    assert difference["parity_max_grey"] <= 2
    assert difference["parity_mean_grey"] < 0.05
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_graph_carries_the_essentials(exported):
    _, promise, file = exported
    graph = onnx.load(file)
    essentials = {entry.key: entry.value for entry in graph.metadata_props}
    assert essentials["livestain_id"] == promise.id
    assert essentials["planes"] == "3"
    assert essentials["outputs"] == "Nuclei, Membrane"
    assert essentials["halo_px"] == str(promise.halo_px)
    assert not {node.op_type for node in graph.graph.node} & {"BatchNormalization", "InstanceNormalization"}
    dims = [dim.dim_param or dim.dim_value for dim in graph.graph.input[0].type.tensor_type.shape.dim]
    assert dims == [1, 3, "16*h", "16*w"]


def test_an_export_runs_on_the_rig(exported, tmp_path):
    model, promise, file = exported
    given = cells(3)
    with torch.no_grad():
        expected = model(torch.from_numpy(given)).numpy()
    package = write_package(tmp_path, promise, file, given, expected, description="Test.", card="# Test")
    verify_package(package)
    got = OnnxModel(package).predict(given[0]).planes
    assert np.abs(got.astype(int) - expected[0]).max() <= 2
    assert expected.std() > 10
