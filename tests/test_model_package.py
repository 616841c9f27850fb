"""Packages: what was written reads back and reproduces; what is broken is refused with the reason."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml

from livestain_models._errors import ModelError
from livestain_models.package import load_package, write_package, zoo
from livestain_models.verify import verify_package
from tests.model_builders import blur_package, fragile_graph, package, two_stains_package, z_stack_package


def edit(folder, change):
    """Change the parsed rdf.yaml in place."""
    file = folder / "rdf.yaml"
    description = yaml.safe_load(file.read_text(encoding="utf-8"))
    change(description)
    file.write_text(yaml.safe_dump(description), encoding="utf-8")


@pytest.mark.parametrize("build", [package, blur_package, two_stains_package, z_stack_package])
def test_round_trip(tmp_path, build):
    written = build(tmp_path / "model")
    read = load_package(tmp_path / "model")
    assert read == written
    assert read.contract.weights_sha256 == hashlib.sha256(read.weights.read_bytes()).hexdigest()
    assert read.fingerprint == f"test-model@1 sha256:{read.contract.weights_sha256[:12]}"
    verify_package(read)


def test_a_package_can_be_moved(tmp_path):
    package(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "b")
    verify_package(load_package(str(tmp_path / "b")))


def test_rewriting_replaces(tmp_path):
    first = blur_package(tmp_path / "model")
    second = package(tmp_path / "model")
    assert second.contract.weights_sha256 != first.contract.weights_sha256
    verify_package(load_package(tmp_path / "model"))


@pytest.mark.parametrize("name", zoo())
def test_the_shipped_packages_reproduce(name):
    shipped = load_package(name)
    verify_package(shipped)
    essentials = {entry.key: entry.value for entry in onnx.load(shipped.weights).metadata_props}
    assert essentials["livestain_id"] == shipped.contract.id
    assert float(essentials["pixel_size_um"]) == shipped.contract.pixel_size_um
    assert shipped.weights.stat().st_size < 4e6


def test_the_shipped_nuclei_model_beats_its_baselines():
    scores = load_package("nuclei-demo").contract.scores
    assert scores["pearson"] >= 0.9 > scores["input_copied_pearson"]
    assert scores["parity_max_grey"] <= 2


REFUSED = {
    "contract without pixel size": (lambda d: d["config"]["livestain"].pop("pixel_size_um"), "pixel_size_um"),
    "contract with a typo": (lambda d: d["config"]["livestain"].update(halo=3), r"halo.*got 3"),
    "wrong hash": (lambda d: d["weights"]["onnx"].update(sha256="0" * 64), "damaged or another"),
    "no hash": (lambda d: d["weights"]["onnx"].pop("sha256"), "described is None"),
    "contract of other weights": (
        lambda d: d["config"]["livestain"].update(weights_sha256="0" * 64),
        "not of the same export",
    ),
    "weights not there": (lambda d: d["weights"]["onnx"].update(source="w.onnx"), "'w.onnx', which is not there"),
    "weights elsewhere": (lambda d: d["weights"]["onnx"].update(source="../w.onnx"), "outside the package"),
    "weights on the network": (
        lambda d: d["weights"]["onnx"].update(source="https://example.org/w.onnx"),
        "outside the package",
    ),
    "pickled weights only": (
        lambda d: d.update(weights={"pytorch_state_dict": {"source": "weights.onnx"}}),
        "got: pytorch_state_dict.*never loaded",
    ),
    "no weights": (lambda d: d.pop("weights"), "got: none"),
    "not a model": (lambda d: d.update(type="dataset"), "type: model"),
    "old format": (lambda d: d.update(format_version="0.3.6"), r"'0\.3\.6' is not read"),
}


@pytest.mark.parametrize(("change", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_at_load(tmp_path, change, reason):
    package(tmp_path / "model")
    edit(tmp_path / "model", change)
    with pytest.raises(ModelError, match=reason):
        load_package(tmp_path / "model")


def test_truncated_weights_are_refused(tmp_path):
    weights = package(tmp_path / "model").weights
    weights.write_bytes(weights.read_bytes()[:-5])
    with pytest.raises(ModelError, match="damaged or another"):
        load_package(tmp_path / "model")


@pytest.mark.parametrize("text", ["a: [1,", "a: b: c", "", "- 1", "\x00"])
def test_broken_yaml_is_refused(tmp_path, text):
    package(tmp_path / "model")
    (tmp_path / "model" / "rdf.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match=r"rdf\.yaml"):
        load_package(tmp_path / "model")


def test_a_missing_package_names_the_shipped_ones(tmp_path):
    with pytest.raises(ModelError, match=r"neither a folder nor.*nuclei-demo"):
        load_package("no-such-model")
    with pytest.raises(ModelError, match=r"has no rdf\.yaml"):
        load_package(tmp_path)


def test_output_that_does_not_reproduce(tmp_path):
    good = package(tmp_path / "good")
    given, expected = (np.load(good.folder / f"test_{side}.npy") for side in ("input", "output"))
    bad = write_package(
        tmp_path / "bad", good.contract, good.weights, given, expected ^ 4, description="Bad.", card="# Bad"
    )
    with pytest.raises(ModelError, match="does not reproduce: it differs by up to 4 grey levels"):
        verify_package(bad)


def test_output_of_another_shape(tmp_path):
    good = package(tmp_path / "good")
    given = np.load(good.folder / "test_input.npy")
    bad = write_package(
        tmp_path / "bad", good.contract, good.weights, given, given[..., :4], description="Bad.", card="# Bad"
    )
    with pytest.raises(ModelError, match="shape"):
        verify_package(bad)


def test_graph_that_fails_on_its_own_input(tmp_path):
    good = package(tmp_path / "good", fragile_graph())
    given = np.full((1, 1, 4, 4), 666, np.uint16)
    bad = write_package(tmp_path / "bad", good.contract, good.weights, given, given, description="Bad.", card="# Bad")
    with pytest.raises(ModelError, match="does not run on its own test input"):
        verify_package(bad)


def test_a_changed_test_tensor_is_refused(tmp_path):
    good = package(tmp_path / "model")
    np.save(good.folder / "test_input.npy", np.zeros((1, 1, 8, 8), np.uint16))
    with pytest.raises(ModelError, match=r"test_input\.npy has sha256"):
        verify_package(good)


def test_weights_that_changed_are_refused(tmp_path):
    good = package(tmp_path / "model")
    good.weights.write_bytes(good.weights.read_bytes() + b"\x00")
    with pytest.raises(ModelError, match=r"weights\.onnx has sha256"):
        verify_package(good)


def test_no_pickle_is_unpickled(tmp_path):
    good = package(tmp_path / "model")
    evil = good.folder / "test_input.npy"
    evil.write_bytes(pickle.dumps(Touch(tmp_path / "touched")))
    digest = hashlib.sha256(evil.read_bytes()).hexdigest()
    edit(good.folder, lambda d: d["inputs"][0]["test_tensor"].update(sha256=digest))
    with pytest.raises(ModelError, match=r"no plain|not a plain"):
        verify_package(load_package(good.folder))
    assert not (tmp_path / "touched").exists()


class Touch:
    """Unpickling it creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_without_its_contract_it_is_a_package_made_elsewhere(tmp_path):
    package(tmp_path / "model")
    edit(tmp_path / "model", lambda d: d.pop("config"))
    read = load_package(tmp_path / "model")
    assert read.contract.foreign
    assert read.contract.pixel_size_um == 0.5  # the standard part says it too
    assert verify_package(read).max_difference == 0


def test_the_proof_has_figures(tmp_path):
    good = package(tmp_path / "good")
    given, expected = (np.load(good.folder / f"test_{side}.npy") for side in ("input", "output"))
    expected[0, 0, 0, 0] ^= 1
    near = write_package(
        tmp_path / "near", good.contract, good.weights, given, expected, description="Near.", card="# Near"
    )
    proof = verify_package(near)
    assert (proof.max_difference, proof.allowed, proof.unit) == (1, 2, "grey levels")
    assert proof.mismatched_ppm == 0
    assert proof.warnings == ("the package does not say its scores",)
    assert verify_package(load_package("nuclei-demo")).warnings == ()
