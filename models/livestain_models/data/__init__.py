"""The pairs to learn from: read, checked, split. Without torch; patches and augmentation are imported by name."""

from __future__ import annotations

from livestain_models.data._source import LeftOut
from livestain_models.data.fields import Field, Planes, Targets
from livestain_models.data.reading import Found, read_fields
from livestain_models.data.registration import Registration, register
from livestain_models.data.scales import Scale, Scales, measure_scales, to_units
from livestain_models.data.split import Parts, split_fields

__all__ = [
    "Field",
    "Found",
    "LeftOut",
    "Parts",
    "Planes",
    "Registration",
    "Scale",
    "Scales",
    "Targets",
    "measure_scales",
    "read_fields",
    "register",
    "split_fields",
    "to_units",
]
