"""What a person writes to train a model: the data, the network, what is learned and how (a RECIPE.yaml)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from livestain_models._errors import RecipeError

__all__ = [
    "Augment",
    "Classes",
    "Data",
    "DistanceMap",
    "Loss",
    "Network",
    "PlanesWanted",
    "Recipe",
    "Source",
    "Split",
    "Target",
    "Training",
    "load_recipe",
]

Mode = Literal["regression", "error bars", "gan", "lupi", "viability"]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Range = tuple[float, float]


class _Written(BaseModel):
    """Base of what a person writes: an unknown key is an error, not ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Source(_Written):
    """Where pairs lie.

    Attributes
    ----------
    path
        A run folder of livestain, an OME-Zarr, or a folder of TIFFs; `*` stands for any part of a name. Relative
        to the recipe.
    instrument
        Which microscope took them; without it the data's own word, or "unnamed".
    """

    path: str
    instrument: str | None = None


class PlanesWanted(_Written):
    """Which focal planes make one input.

    Attributes
    ----------
    count
        Planes the model takes.
    step
        Acquired planes from one to the next: 3 takes every third.
    windows
        "centre": of a stack, the window in its middle. "all": every window of the stack is an input of its own,
        so that the model learns to stand a wrong focus.
    """

    count: int = Field(default=1, ge=1)
    step: int = Field(default=1, ge=1)
    windows: Literal["centre", "all"] = "centre"


class DistanceMap(_Written):
    """Whose distance map is learned, where the stain shows more than one object or does not part them.

    Attributes
    ----------
    name
        Of the objects, e.g. "Cells"; the predicted channel is called "Cells distance (predicted)".
    seeds
        Name of a target that shows one thing in each object, e.g. "Nuclei": the objects are grown from these. Without
        it they are found in the stain itself.
    """

    name: str = Field(min_length=1)
    seeds: str | None = None


class Target(_Written):
    """One real stain to learn.

    Attributes
    ----------
    name
        Of the stain, e.g. "Nuclei"; the predicted channel is called "Nuclei (predicted)".
    channel
        The channel as acquired; for a folder of TIFFs the file pattern, e.g. "dna/{field}.tif". The name if not
        given.
    color
        RRGGBB, for viewers.
    distance_map
        Also learn each pixel's distance to the edge of its nucleus, for instance segmentation. `{name: Cells, seeds:
        Nuclei}`: of whole cells, one for each nucleus.
    shown
        Predict the stain. Not so for a dye that only tells classes apart; in mode "viability" none is predicted.
    """

    name: str
    channel: str = ""
    color: str = Field(default="00BFFF", pattern=r"^[0-9A-Fa-f]{6}$")
    distance_map: bool | DistanceMap = False
    shown: bool = True

    @property
    def objects(self) -> DistanceMap | None:
        """Whose distance map is learned: that of what the stain shows, if nothing else is said."""
        if isinstance(self.distance_map, DistanceMap):
            return self.distance_map
        return DistanceMap(name=self.name) if self.distance_map else None

    @property
    def source(self) -> str:
        """The channel or file pattern to read."""
        return self.channel or self.name


class Classes(_Written):
    """How live, injured and dead are told in the training data.

    Either a label channel (0 background, 1 live, 2 injured, 3 dead), or two dyes: nuclei are segmented on `all_cells`
    and sorted by the ratio of the `dead_cells` dye to it.

    Attributes
    ----------
    labels
        Channel or file pattern of the labels.
    all_cells, dead_cells
        Names of targets: a stain of every nucleus, and one that only dead cells take up.
    injured_ratio, dead_ratio
        From which ratio of the dyes (each over its background, per nucleus) a cell is injured, and dead.
    """

    labels: str | None = None
    all_cells: str | None = None
    dead_cells: str | None = None
    injured_ratio: float = Field(default=0.15, gt=0)
    dead_ratio: float = Field(default=0.6, gt=0)

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        dyes = self.all_cells is not None and self.dead_cells is not None
        if (self.labels is not None) == dyes:
            raise ValueError("give either labels, or both all_cells and dead_cells")
        if self.injured_ratio >= self.dead_ratio:
            raise ValueError("injured_ratio must be below dead_ratio")
        return self


class Split(_Written):
    """Which fields are learned from, which choose the best step, and which are kept for the score.

    Attributes
    ----------
    by
        "field", "instrument" (all fields of an instrument go together), or "columns": every field is cut into
        vertical strips, for data of one or two fields. Never by patch: neighbouring patches share cells.
    validation, test
        Shares of the fields, instruments or columns, at least one each; or names, where `*` stands for any part.
    order
        For columns: the strips from left to right.
    seed
        Of the draw by shares.
    """

    by: Literal["field", "instrument", "columns"] = "field"
    validation: Fraction | tuple[str, ...] = 0.1
    test: Fraction | tuple[str, ...] = 0.2
    order: tuple[Literal["train", "validation", "test"], ...] = ("train", "validation", "test")
    seed: int = 0

    @model_validator(mode="after")
    def _leaves_something_to_learn_from(self) -> Self:
        if self.by == "columns":
            if isinstance(self.validation, tuple) or isinstance(self.test, tuple):
                raise ValueError("columns are split by shares, not by names")
            if sorted(self.order) != ["test", "train", "validation"]:
                raise ValueError(f"order must hold train, validation and test once each, got {list(self.order)}")
        shares = [share for share in (self.validation, self.test) if isinstance(share, float)]
        if sum(shares) >= 0.9:
            raise ValueError(f"validation and test take {sum(shares):.0%}; leave at least 10 % to learn from")
        return self


class Data(_Written):
    """The pairs.

    Attributes
    ----------
    pairs
        Where they lie; a plain string is a path.
    input
        Channel of transmitted light; for a folder of TIFFs a file pattern, e.g. "bf/{field}.tif".
    targets
        The real stains; a plain string is a channel.
    classes
        Learn them too; in mode "viability" nothing else.
    planes
        Focal planes that make one input.
    pixel_size_um, plane_spacing_um
        Where the data do not say.
    contrast
        Kind of transmitted light, as rig files call it: "bright field", "phase contrast", ...
    split
        Which pairs are for what.
    check_registration
        Leave out pairs whose channels do not lie on each other, and say so.
    tolerance_um
        How far input and stain may be apart.
    """

    pairs: tuple[Source, ...] = Field(min_length=1)
    input: str
    targets: tuple[Target, ...] = Field(min_length=1)
    classes: Classes | None = None
    planes: PlanesWanted = PlanesWanted()
    pixel_size_um: float | None = Field(default=None, gt=0)
    plane_spacing_um: float | None = Field(default=None, gt=0)
    contrast: str = "bright field"
    split: Split = Split()
    check_registration: bool = True
    tolerance_um: float = Field(default=1.5, gt=0)

    @model_validator(mode="before")
    @classmethod
    def _plain_strings(cls, written: Any) -> Any:
        if not isinstance(written, dict):
            return written
        written = dict(written)
        for key, name in (("pairs", "path"), ("targets", "name")):
            if isinstance(written.get(key), str):
                written[key] = [written[key]]
            if isinstance(written.get(key), list | tuple):
                written[key] = [{name: item} if isinstance(item, str) else item for item in written[key]]
        return written

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [target.name for target in self.targets]
        if len(set(names)) < len(names):
            raise ValueError(f"every target needs a name of its own, got {names}")
        for dye in (self.classes.all_cells, self.classes.dead_cells) if self.classes else ():
            if dye is not None and dye not in names:
                raise ValueError(f"classes names the dye {dye!r}, which is none of the targets {names}")
        mapped = [target.objects for target in self.targets if target.objects is not None]
        if len({objects.name for objects in mapped}) < len(mapped):
            raise ValueError(f"every distance map needs a name of its own, got {[one.name for one in mapped]}")
        for objects in mapped:
            if objects.seeds is not None and objects.seeds not in names:
                raise ValueError(
                    f"distance_map names the seeds {objects.seeds!r}, which is none of the targets {names}"
                )
        return self


class Augment(_Written):
    """How training patches are varied, so that a new instrument finds the model prepared; a pair of numbers is a range.

    Attributes
    ----------
    flips
        Mirror, and turn by quarters.
    rotate_deg
        Turn by up to so much either way.
    scale
        Zoom.
    shear
        Slant by up to so much.
    elastic_px
        Bend by random displacements of this standard deviation; for data of few fields, which are soon known by heart.
    gamma, gain
        Bend and stretch the contrast of the input.
    offset
        Shift the normalised input by up to so much either way.
    noise
        Standard deviation of added noise, of the normalised input's.
    blur_px
        Sigma of a Gaussian.
    drop_planes
        Chance of each focal plane to be missing (its neighbour in its place).
    invert
        Chance that the contrast is inverted, where both contrasts occur.
    paste
        Chance that a rectangle of another patch replaces part of one (CutMix, Yun et al. 2019); for data of few
        fields.
    """

    flips: bool = True
    rotate_deg: float = Field(default=180, ge=0, le=180)
    scale: Range = (0.7, 1.3)
    shear: float = Field(default=0.1, ge=0, le=1)
    elastic_px: float = Field(default=0.0, ge=0, le=20)
    gamma: Range = (0.8, 1.25)
    gain: Range = (0.7, 1.4)
    offset: float = Field(default=0.1, ge=0)
    noise: Range = (0.0, 0.15)
    blur_px: Range = (0.0, 1.0)
    drop_planes: Fraction = 0.0
    invert: Fraction = 0.0
    paste: Fraction = 0.0

    @model_validator(mode="after")
    def _ranges_rise(self) -> Self:
        for name in ("scale", "gamma", "gain", "noise", "blur_px"):
            low, high = getattr(self, name)
            if low > high or low < 0 or (low == 0 and name in ("scale", "gamma", "gain")):
                raise ValueError(f"{name} must be a rising range of positive numbers, got ({low:g}, {high:g})")
        return self


class Network(_Written):
    """The network.

    Attributes
    ----------
    kind
        "unet": planes as channels; "fast": the same at a quarter of the resolution, for large frames without a graphics
        card; "unet3d": planes as depth; "large": MONAI's FlexibleUNet with a residual encoder.
    base
        Channels at the first level; doubled at each level below.
    levels
        Resolutions; a patch's side must be a multiple of 2**levels, for "fast" of 2**(levels + 1). On the rig, frames
        of any size are padded. Like `base`, not used by "large", whose patches are multiples of 32.
    dropout
        Share of channels that is dropped in training, at every level; for data of few fields.
    normalise
        "local": each pixel over the mean of its surroundings, so that a tile is normalised as the whole frame is.
        "field": median and spread of the whole field; a frame cannot be stained in tiles then.
    gain
        For "local": brings the contrast of cells to the order of one; None measures it on the training data.
    """

    kind: Literal["unet", "fast", "unet3d", "large"] = "unet"
    base: int = Field(default=16, ge=4, le=128)
    levels: int = Field(default=4, ge=2, le=6)
    dropout: Fraction = 0.0
    normalise: Literal["local", "field"] = "local"
    gain: float | None = Field(default=None, gt=0)


class Loss(_Written):
    """Weights of what is minimised between predicted and real stain; 0 leaves a term out.

    Attributes
    ----------
    l1, mse
        Mean absolute and mean square error.
    ms_ssim
        1 - multi-scale structural similarity.
    pearson
        1 - Pearson's r over the batch.
    distance
        Mean absolute error of the distance map.
    adversarial
        For mode "gan": the discriminator's word.
    mask
        For mode "lupi": binary cross-entropy and Dice of the nucleus mask.
    classes
        Focal loss and Dice of the classes.
    focal_gamma
        How strongly the focal loss discounts easy pixels.
    """

    l1: float = Field(default=1.0, ge=0)
    mse: float = Field(default=0.0, ge=0)
    ms_ssim: float = Field(default=0.3, ge=0)
    pearson: float = Field(default=1.0, ge=0)
    distance: float = Field(default=0.5, ge=0)
    adversarial: float = Field(default=0.02, ge=0)
    mask: float = Field(default=0.5, ge=0)
    classes: float = Field(default=1.0, ge=0)
    focal_gamma: float = Field(default=2.0, ge=0)


class Training(_Written):
    """The loop.

    Attributes
    ----------
    steps
        Optimiser steps.
    batch
        Patches a step, over all processes.
    patch_px
        Side of a patch, a multiple of 2**network.levels. Fields that are smaller are mirrored.
    foreground
        Share of the patches that are drawn around stained pixels, or, with classes, around each of them alike; the
        others are drawn evenly.
    learning_rate, weight_decay, warm_up
        Of AdamW; the rate rises over `warm_up` steps and falls along half a cosine.
    ema
        Decay of the averaged weights, which are what is deployed.
    validate_every
        Steps between looks at the validation part, and between checkpoints.
    patience
        Looks without a better score until training stops; 0 never stops early.
    precision
        "fp32", or "bf16" for mixed precision.
    seed
        Of initial weights, patches and augmentation.
    """

    steps: int = Field(default=3000, ge=1)
    batch: int = Field(default=8, ge=1)
    patch_px: int = Field(default=192, ge=32)
    foreground: float = Field(default=0.7, ge=0, le=1)
    learning_rate: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=1e-2, ge=0)
    warm_up: int = Field(default=100, ge=0)
    ema: float = Field(default=0.998, ge=0, lt=1)
    validate_every: int = Field(default=250, ge=1)
    patience: int = Field(default=0, ge=0)
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = 0


class Recipe(_Written):
    """One model, from data to package.

    Attributes
    ----------
    id, version
        Of the package that will be exported.
    mode
        "regression"; "error bars": also predict the standard deviation of the own error; "gan": with a PatchGAN
        discriminator; "lupi": the nucleus mask as privileged information in training; "viability": live, injured,
        dead and background, and nothing else.
    training_data, intended_use, limitations
        For the card, and for the person who decides whether to trust the model.
    licence
        SPDX identifier of the weights' licence.
    """

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    version: str = Field(default="0.1.0", min_length=1)
    mode: Mode = "regression"
    data: Data
    augment: Augment = Augment()
    network: Network = Network()
    loss: Loss = Loss()
    train: Training = Training()
    training_data: str = Field(default="", min_length=0)
    intended_use: str = "research on images like those it was trained on"
    limitations: str = "not for diagnosis; not for images of other cells or another contrast than it was trained on"
    licence: str = "BSD-3-Clause"

    @model_validator(mode="after")
    def _mode_has_what_it_needs(self) -> Self:
        if self.mode == "viability" and self.data.classes is None:
            raise ValueError('mode "viability" needs data.classes')
        if self.data.classes is not None and self.mode not in ("regression", "viability"):
            raise ValueError(f'data.classes goes with mode "regression" or "viability", not with "{self.mode}"')
        if self.mode != "viability" and not any(target.shown for target in self.data.targets):
            raise ValueError('no target is shown; to predict nothing but classes, take mode "viability"')
        if self.mode == "lupi" and len(self.data.targets) != 1:
            raise ValueError('mode "lupi" learns one nuclear stain, give one target')
        if self.network.kind == "unet3d" and self.data.planes.count < 2:
            raise ValueError("network unet3d needs data.planes.count of at least 2")
        if self.network.kind == "fast" and self.network.normalise == "field":
            raise ValueError("network fast takes the local normalisation into its stem; write normalise: local")
        levels = self.network.levels + (self.network.kind == "fast")
        multiple = 32 if self.network.kind == "large" else 2**levels
        if self.train.patch_px % multiple:
            raise ValueError(f"train.patch_px {self.train.patch_px} must be a multiple of {multiple} for this network")
        if self.network.kind == "unet3d" and self.mode == "gan":
            raise ValueError('mode "gan" judges planes, take network.kind unet or large')
        return self


def load_recipe(file: Path, overrides: dict[str, Any] | None = None) -> Recipe:
    """Read a recipe.

    Parameters
    ----------
    file : Path
        YAML; paths of pairs in it are relative to its folder.
    overrides : dict, optional
        Dotted keys that replace what the file says, e.g. ``{"train.steps": 100}``.

    Returns
    -------
    Recipe
        With absolute paths.

    Raises
    ------
    RecipeError
        No such file, no YAML, or a key or value that does not belong; the text names each of them.
    """
    try:
        written = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(
            f"The recipe {file} cannot be read: {error.strerror}. Give the path of a YAML file."
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{file} is not valid YAML: {error}") from error
    if not isinstance(written, dict):
        raise RecipeError(f"{file} holds no mapping; a recipe has the keys {', '.join(Recipe.model_fields)}.")
    for dotted, value in (overrides or {}).items():
        _replace(written, dotted, value)
    try:
        recipe = Recipe.model_validate(written)
    except ValidationError as error:
        raise RecipeError(f"{file}:\n" + "\n".join(_fault(entry) for entry in error.errors())) from error
    pairs = tuple(source.model_copy(update={"path": _absolute(source.path, file)}) for source in recipe.data.pairs)
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"pairs": pairs})})


def _replace(written: dict[str, Any], dotted: str, value: Any) -> None:
    *sections, key = dotted.split(".")
    for section in sections:
        inner = written.setdefault(section, {})
        if not isinstance(inner, dict):
            raise RecipeError(
                f"{dotted}: there is no such key; {section} is {inner!r:.60}. Replace {section} as a whole."
            )
        written = inner
    written[key] = value


def _fault(entry: Any) -> str:
    place = ".".join(map(str, entry["loc"])) or "recipe"
    message = str(entry["msg"]).removeprefix("Value error, ")
    if entry["type"] == "extra_forbidden":
        return f"  {place}: there is no such key"
    if entry["type"] == "missing":
        return f"  {place}: is missing"
    got = "" if isinstance(entry["input"], dict) else f" (got {entry['input']!r:.60})"
    return f"  {place}: {message}{got}"


def _absolute(path: str, file: Path) -> str:
    return str(file.resolve().parent / Path(path).expanduser())
