"""The network as deployed: normalisation, how far it sees, what its channels mean, export and parity."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from livestain._stain import OnnxModel
from livestain_models.contract import Contract, Planes
from livestain_models.deployed import Deployed, build_network, reach_px
from livestain_models.export import export_onnx, parity
from livestain_models.heads import CLASSES, DEVIATION_RANGE, STAIN_RANGE, Heads
from livestain_models.normalise import FieldContrast, LocalContrast, local_contrast
from livestain_models.package import write_package
from livestain_models.recipe import Network
from livestain_models.unet import UNet
from livestain_models.validation import precise_batchnorm
from livestain_models.verify import verify_package
from tests.model_builders import contract

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from livestain_models.package import Package

pytestmark = pytest.mark.usefixtures("one_thread")

ONE_STAIN = Heads(("Nuclei",), ("00BFFF",))
TWO_STAINS = Heads(("Nuclei", "Membrane"), ("00BFFF", "FF8C00"))
EVERYTHING = Heads(("Nuclei", "Membrane"), ("00BFFF", "FF8C00"), ("Nuclei",), error_bars=True, mask=True, classes=True)
SMALL = {"base": 4, "levels": 2}


def shaken(net: nn.Module) -> nn.Module:
    """Move an untrained network's BatchNorm away from the identity, and its output into range."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 2.0)
    last = [module for module in net.modules() if isinstance(module, nn.Conv2d | nn.Conv3d)][-1]
    if last.bias is not None:
        nn.init.constant_(last.bias, 0.7)
    return net


def deployed(planes: int = 1, heads: Heads = ONE_STAIN, *, field: bool = False, **network: Any) -> Deployed:
    torch.manual_seed(0)
    net = shaken(build_network(Network(**(SMALL | network)), planes, heads.channels))
    local = local_contrast(Network(**(SMALL | network)), gain=10.0)
    return Deployed(net, FieldContrast() if field else local, heads, planes).eval()


def cells(planes: int = 1, height: int = 256, width: int = 320, level: float = 1000) -> np.ndarray:
    """Blobs on a vignetted background, with shot noise."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:height, :width]
    light = 1 - 0.3 * ((y / height - 0.5) ** 2 + (x / width - 0.5) ** 2)
    for _ in range(20):
        cy, cx, size = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(4, 12)
        light = light * (1 - 0.2 * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * size**2)))
    return rng.poisson(light * level, (1, planes, height, width)).astype(np.uint16)


def promise_of(model: Deployed) -> Contract:
    spacing_um = 1.0 if model.planes > 1 else None
    return contract(
        outputs=model.heads.outputs(),
        planes=Planes(count=model.planes, spacing_um=spacing_um),
        multiple_px=model.multiple_px,
        halo_px=model.halo_px,
    )


def packaged(model: Deployed, folder: Path) -> Package:
    """Export a model as a package; its test output is torch's word, not the graph's."""
    given = cells(model.planes, 64, 96)
    with torch.no_grad():
        expected = model(torch.from_numpy(given)).numpy()
    export_onnx(model, promise_of(model), folder / "graph.onnx")
    return write_package(
        folder, promise_of(model), folder / "graph.onnx", given, expected, description="Test.", card="# Test"
    )


# ------------------------------------------------------------------------------------------ grey values


@pytest.mark.parametrize("lamp", [0.25, 2.0, 4.0])
@pytest.mark.parametrize("normalise", [LocalContrast(), FieldContrast()], ids=["local", "field"])
def test_the_lamp_drops_out(normalise: nn.Module, lamp: float) -> None:
    planes = torch.from_numpy(cells().astype(np.float32))
    assert torch.allclose(normalise(planes * lamp), normalise(planes), atol=1e-4)


def test_a_flat_field_drops_out() -> None:
    planes = torch.from_numpy(cells(level=20000).astype(np.float32))
    shade = torch.linspace(0.8, 1.2, planes.shape[-1])  # of a lamp that is off centre
    inner = (..., slice(96, -96), slice(96, -96))
    difference = (LocalContrast()(planes * shade) - LocalContrast()(planes))[inner]
    assert difference.abs().max() < 0.15  # of a contrast of up to 2


@pytest.mark.parametrize("grey", [0.0, 1.0, 30000.0, 65535.0])
@pytest.mark.parametrize("normalise", [LocalContrast(), FieldContrast()], ids=["local", "field"])
def test_constant_frames_stay_finite(normalise: Any, grey: float) -> None:
    out = normalise(torch.full((1, 1, 64, 96), grey))
    assert torch.isfinite(out).all()
    assert out.abs().max() <= (normalise.limit if grey == 0 else 1e-3)


@pytest.mark.parametrize("normalise", [LocalContrast(), FieldContrast()], ids=["local", "field"])
def test_planes_are_normalised_each_on_its_own(normalise: nn.Module) -> None:
    planes = torch.from_numpy(cells(planes=2).astype(np.float32))
    assert torch.equal(normalise(planes)[:, :1], normalise(planes[:, :1]))


def test_statistics_of_the_field_hardly_mind_dust() -> None:
    clean = torch.from_numpy(cells(level=5000).astype(np.float32))
    dusty = clean.clone()
    dusty[..., 20:60, 30:70] = 65535  # 2 % of the frame, burnt out
    away = (..., slice(80, None), slice(100, None))
    clean_out, dusty_out = FieldContrast()(clean)[away], FieldContrast()(dusty)[away]
    assert (clean_out - dusty_out).abs().mean() < 0.1 * clean_out.std()
    assert FieldContrast()(dusty).abs().max() <= 5


def test_parts_of_a_field_are_normalised_by_the_whole_of_it() -> None:
    planes = cells(2)[0]

    class Whole:
        """What the normalisation asks of a field."""

        def input(self, window: Any, rows: slice, columns: slice) -> np.ndarray:
            return planes[list(window)][:, rows, columns]

    normalise = FieldContrast()
    fixed: Any = normalise.of_field(Whole(), (0, 1))  # type: ignore[arg-type]
    whole = torch.from_numpy(planes.astype(np.float32))[None]
    assert torch.equal(fixed(whole[..., 64:128, 32:64]), normalise(whole)[..., 64:128, 32:64])


# ------------------------------------------------------------------------------------------ networks

KINDS: dict[str, tuple[dict[str, Any], int]] = {
    "unet": ({"kind": "unet"}, 3),
    "unet of one plane": ({"kind": "unet", "levels": 4}, 1),
    "fast": ({"kind": "fast"}, 3),
    "fast of one plane": ({"kind": "fast", "levels": 4}, 1),
    "unet3d": ({"kind": "unet3d"}, 3),
    "unet3d, even": ({"kind": "unet3d"}, 4),
    "large": ({"kind": "large"}, 2),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_its_channels_at_the_size_of_its_input(kind: str) -> None:
    network, planes = KINDS[kind]
    model = deployed(planes, EVERYTHING, **network)
    for height, width in ((1, 1), (2, 3)):
        shape = (planes, height * model.multiple_px, width * model.multiple_px)
        frames = torch.randint(0, 65536, (1, *shape), dtype=torch.int32).to(torch.uint16)
        with torch.no_grad():
            out = model(frames)
            raw = model.net(model.normalise(frames.float()))
        assert out.shape == (1, len(EVERYTHING.outputs()), *shape[1:])
        assert out.dtype == torch.uint16
        depth = (planes,) if network["kind"] == "unet3d" else ()
        assert raw.shape == (1, EVERYTHING.channels, *depth, *shape[1:])


@pytest.mark.parametrize("planes", [1, 3])
def test_the_fast_networks_stem_takes_the_normalisation_in(planes: int) -> None:
    model = deployed(planes, EVERYTHING, kind="fast")
    grey = torch.from_numpy(cells(planes, 128, 160).astype(np.float32))
    with torch.no_grad():
        apart, together = model.net(model.normalise(grey)), model.net.on_grey(grey, model.normalise)
    assert apart.std() > 0.01
    assert torch.allclose(apart, together, atol=1e-4)


class Copy(nn.Module):  # type: ignore[misc]
    """A volume network that gives each plane back."""

    multiple_px = 1

    def forward(self, x: Tensor) -> Tensor:
        return x[:, None]


@pytest.mark.parametrize(("planes", "middle"), [(2, 0), (3, 1), (4, 1), (5, 2)])
def test_of_a_volume_the_middle_plane_is_deployed(planes: int, middle: int) -> None:
    model = Deployed(Copy(), LocalContrast(), ONE_STAIN, planes)
    frames = cells(planes)
    with torch.no_grad():
        expected = model.normalise(torch.from_numpy(frames.astype(np.float32)))[:, middle] / STAIN_RANGE
        got = model(torch.from_numpy(frames))[:, 0].float() / 65535
    assert torch.allclose(got, expected.clamp(0, 1), atol=1e-4)


def test_a_volume_network_looks_across_planes_and_stains_each() -> None:
    model = deployed(3, kind="unet3d")
    planes = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        raw, other = model.net(planes), model.net(torch.cat([planes[:, :2], planes[:, :1]], 1))
    assert not torch.equal(raw[:, :, 1], other[:, :, 1])  # its neighbour changed
    assert not torch.equal(raw[:, :, 0], raw[:, :, 2])


# ------------------------------------------------------------------------------------------ how far it sees


class Plain(nn.Module):  # type: ignore[misc]
    """Layers whose reach a hand can count."""

    def __init__(self, multiple_px: int, *layers: nn.Module) -> None:
        super().__init__()
        self.multiple_px, self.layers = multiple_px, nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def conv(size: int, **more: Any) -> nn.Conv2d:
    return nn.Conv2d(1, 1, size, padding="same", **more)


REACHES: dict[str, tuple[nn.Module, int]] = {
    "one pixel": (Plain(1, conv(1)), 0),
    "3 x 3": (Plain(1, conv(3)), 1),
    "twice 3 x 3, a ReLU between": (Plain(1, conv(3), nn.ReLU(), conv(3)), 2),
    "dilated": (Plain(1, conv(3, dilation=5)), 5),
    # Of a cell of 2 px: the coarse pixel and its neighbours, that is 2 px beyond the cell.
    "at half resolution": (Plain(2, nn.MaxPool2d(2), conv(3), nn.Upsample(scale_factor=2)), 2),
    # On the way up 1 pixel of 2 px and then 2 of 4 px beyond the whole one: 4 x (1 + 2) = 12, and on the way down
    # twice 2 px more.
    "unet of two levels": (UNet(1, 1, 4, 2), 16),
}


@pytest.mark.parametrize("name", REACHES)
def test_the_reach_is_that_of_a_hand_count(name: str) -> None:
    net, reach = REACHES[name]
    for weight in net.parameters():
        nn.init.normal_(weight)  # of either sign: what cancels by chance reaches all the same
    assert reach_px(net, 1) == reach


@pytest.mark.parametrize(
    ("network", "planes"), [({"levels": 3}, 1), ({"levels": 2, "kind": "unet3d"}, 2)], ids=["unet", "unet3d"]
)
def test_no_pixel_reaches_beyond_the_halo(network: dict[str, Any], planes: int) -> None:
    model = deployed(planes, **network).double()

    def stain(given: Tensor) -> Tensor:
        with torch.no_grad():
            return model.shares(model.net(model.normalise(given)))[0, 0]

    assert model.halo_px is not None
    size_px = 2 * (model.halo_px + 64)
    frames = 1000 + 100 * torch.rand(1, planes, size_px, size_px, dtype=torch.float64)
    before, middle, reach = stain(frames), size_px // 2, 0
    for at in range(middle - 16, middle + 16, 5):  # every place within a cell of the grid matters
        changed = frames.clone()
        changed[0, :, at, at] *= 100
        moved = (stain(changed) - before).abs() > 1e-12
        reach = max(reach, int((moved.nonzero() - at).abs().max()))
    assert model.halo_px - 2 * model.multiple_px < reach <= model.halo_px


def test_with_statistics_of_the_field_there_is_no_halo() -> None:
    assert deployed(field=True).halo_px is None
    assert deployed(field=True).multiple_px == FieldContrast.cell_px


def test_measuring_the_reach_leaves_the_network_as_it_is() -> None:
    net = shaken(UNet(1, 1, 4, 2)).train()
    before = copy.deepcopy(net.state_dict())
    reach_px(net, 1)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert net.training
    assert all(weight.requires_grad for weight in net.parameters())


def test_precise_batchnorm_is_the_average_over_batches() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    batches = [torch.randn(4, 1, 8, 8) * scale for scale in (1, 2, 3)]
    precise_batchnorm(net, batches)
    with torch.no_grad():
        means = torch.stack([net[0](batch).mean((0, 2, 3)) for batch in batches])
        variances = torch.stack([net[0](batch).var((0, 2, 3)) for batch in batches])
    assert torch.allclose(net[1].running_mean, means.mean(0), atol=1e-6)
    assert torch.allclose(net[1].running_var, variances.mean(0), rtol=1e-5)
    assert not net.training
    assert not net[1].training
    assert net[1].momentum == 0.1


# ------------------------------------------------------------------------------------------ what channels mean


def test_channels_come_in_the_order_that_is_written_down() -> None:
    raw = torch.arange(EVERYTHING.channels, dtype=torch.float32)[None, :, None, None].expand(1, -1, 2, 3)
    parted = EVERYTHING.split(raw)
    firsts = [part[0, :, 0, 0].tolist() for part in (parted.stains, parted.distances, parted.mask, parted.classes)]  # type: ignore[union-attr]
    assert firsts == [[0, 1], [4], [5], [6, 7, 8, 9]]
    assert parted.log_variance is not None
    assert parted.log_variance[0, :, 0, 0].tolist() == [2, 3]
    lean = ONE_STAIN.split(raw[:, :1])
    assert (lean.log_variance, lean.distances, lean.mask, lean.classes) == (None,) * 4


def test_log_variances_stay_where_training_does_not_diverge() -> None:
    heads = Heads(("Nuclei",), ("00BFFF",), error_bars=True)
    parted = heads.split(torch.tensor([[0.0, -99.0], [0.0, 99.0]])[:, :, None, None])
    assert parted.log_variance is not None
    assert parted.log_variance.flatten().tolist() == [-7, 3]


def test_the_outputs_describe_the_deployed_channels() -> None:
    outputs = EVERYTHING.outputs()
    names = ["Nuclei", "Membrane", "Nuclei deviation", "Membrane deviation", "Nuclei distance", *CLASSES]
    assert [output.name for output in outputs] == names
    assert [output.kind for output in outputs] == [*["stain"] * 2, *["deviation"] * 2, "distance", *["class"] * 3]
    assert [output.of for output in outputs] == [None, None, "Nuclei", "Membrane", "Nuclei", None, None, None]
    # What a share of full scale means is what the description says, value by value.
    raw = torch.zeros(1, EVERYTHING.channels, 1, 1)
    raw[0, :, 0, 0] = torch.tensor([0.5, 1.5, 2 * np.log(0.25), 2 * np.log(0.1), 0.3, 50.0, 0.0, 0.0, 0.0, 20.0])
    values = EVERYTHING.deployed(raw, deviation_factor=2.0)[0, :, 0, 0].numpy() * [o.full_scale for o in outputs]
    np.testing.assert_allclose(values, [0.5, 1.5, 0.5, 0.2, 0.3, 0, 0, 1], atol=1e-6)
    assert len(values) == EVERYTHING.channels - 2  # without the mask and the background


def test_classes_share_one_whole_with_the_background() -> None:
    heads = Heads((), (), classes=True)
    logits = torch.randn(2, 4, 5, 6)
    shares = heads.deployed(logits)
    assert shares.shape == (2, 3, 5, 6)
    np.testing.assert_allclose(shares.sum(1) + torch.softmax(logits, 1)[:, 0], 1, atol=1e-6)


def test_the_deviation_factor_scales_deviations_only() -> None:
    heads = Heads(("Nuclei",), ("00BFFF",), error_bars=True)
    raw = torch.randn(1, 2, 4, 4)
    once, thrice = heads.deployed(raw), heads.deployed(raw, 3.0)
    assert torch.equal(once[:, :1], thrice[:, :1])
    assert torch.allclose(once[:, 1:] * 3, thrice[:, 1:])
    assert torch.allclose(once[:, 1:] * DEVIATION_RANGE, torch.exp(0.5 * raw[:, 1:]))


# ------------------------------------------------------------------------------------------ export

EXPORTS: dict[str, tuple[int, Heads, dict[str, Any]]] = {
    "two stains of three planes": (3, TWO_STAINS, {}),
    "volume, all heads": (2, EVERYTHING, {"kind": "unet3d"}),
    "statistics of the field": (1, ONE_STAIN, {"field": True}),
}


@pytest.fixture(scope="module", params=EXPORTS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Deployed, Package]:
    planes, heads, more = EXPORTS[request.param]
    model = deployed(planes, heads, **more)
    return model, packaged(model, tmp_path_factory.mktemp("export"))


def test_torch_and_onnxruntime_agree_at_every_size(exported: tuple[Deployed, Package]) -> None:
    model, package = exported
    rng, multiple = np.random.default_rng(0), model.multiple_px
    sizes = [(1, 1), (2, 1), (4, 3), (7, 9)]
    noise = [rng.integers(0, 65536, (1, model.planes, h * multiple, w * multiple), np.uint16) for h, w in sizes]
    before = copy.deepcopy(model.state_dict())
    difference = parity(model, package.weights, [cells(model.planes), *noise])
    assert difference["parity_max_grey"] <= 2
    assert difference["parity_mean_grey"] < 0.05
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_graph_carries_the_essentials(exported: tuple[Deployed, Package]) -> None:
    model, package = exported
    graph = onnx.load(package.weights)
    essentials = {entry.key: entry.value for entry in graph.metadata_props}
    assert essentials["livestain_id"] == package.contract.id
    assert essentials["planes"] == str(model.planes)
    assert essentials["outputs"] == ", ".join(output.name for output in model.heads.outputs())
    assert essentials["halo_px"] == str(model.halo_px)
    assert not {node.op_type for node in graph.graph.node} & {"BatchNormalization", "InstanceNormalization"}
    dims = [dim.dim_param or dim.dim_value for dim in graph.graph.input[0].type.tensor_type.shape.dim]
    assert dims == [1, model.planes, f"{model.multiple_px}*h", f"{model.multiple_px}*w"]


def test_an_export_runs_on_the_rig(exported: tuple[Deployed, Package]) -> None:
    model, package = exported
    verify_package(package)
    given = cells(model.planes)
    with torch.no_grad():
        expected = model(torch.from_numpy(given)).numpy()[0]
    got = OnnxModel(package).predict(given[0]).planes
    assert np.abs(got.astype(int) - expected).max() <= 2
    assert expected[0].std() > 10


def test_tiles_give_the_frame_to_the_bit(exported: tuple[Deployed, Package]) -> None:
    model, package = exported
    frame = cells(model.planes, 401, 530)[0]  # no multiple of anything
    whole = OnnxModel(package).predict(frame).planes
    # Without a halo the frame is stained in one piece, however small the tiles are wanted.
    tile_px = 2 * (model.halo_px or 0) + 3 * model.multiple_px
    tiles = OnnxModel(package, max_tile_px=tile_px).predict(frame).planes
    np.testing.assert_array_equal(tiles, whole)


@pytest.mark.slow
def test_the_large_network_is_exported_faithfully(tmp_path: Path) -> None:
    model = deployed(1, ONE_STAIN, kind="large")
    package = packaged(model, tmp_path)
    assert parity(model, package.weights, [cells()])["parity_max_grey"] <= 4
    assert verify_package(package).max_difference <= 2
