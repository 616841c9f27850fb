"""The lines of the journal: what is said of a run, a frame, a prediction."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from livestain._errors import StoreError
from livestain._layout import Channel, Image, Layout

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from livestain._frame import Frame, Job, Place, Stained

__all__ = ["header_line", "iso_time", "layout_from_header", "missing_line", "raw_line", "stain_line", "stained_line"]


def header_line(layout: Layout, time_s: float, more: Mapping[str, Any]) -> dict[str, Any]:
    """Make the first line: the layout of the images and whatever `more` has to say."""
    plain = dataclasses.asdict(dataclasses.replace(layout, image_of={}))
    return {"kind": "run", "format": 1, "time": iso_time(time_s), "layout": plain, **more}


def layout_from_header(header: Mapping[str, Any]) -> Layout:
    """Read back the layout that a header carries. It places no events: those are over."""
    try:
        return _layout(dict(header["layout"]))
    except (KeyError, TypeError) as error:
        raise StoreError(
            f"the journal's header was written by another version of livestain ({str(error)[:80]}), which this one "
            "cannot read. Open the run with the version that `experiment.yaml` and the journal name."
        ) from error


def _layout(plain: dict[str, Any]) -> Layout:
    plain["images"] = tuple(Image(**(image | {"well": _tuple(image["well"])})) for image in plain["images"])
    plain["channels"] = tuple(Channel(**channel) for channel in plain["channels"])
    plain["plate"] = _tuple(plain["plate"])
    return Layout(**plain)


def raw_line(frame: Frame, committed_ns: int, crc32: int) -> dict[str, Any]:
    """Make the line of a raw frame whose commit has returned; `crc32` is of its uint16 bytes."""
    return {
        "kind": "raw",
        "at": dataclasses.astuple(frame.place),
        "time": iso_time(frame.time_s),
        "camera_to_disk_ms": _ms(committed_ns - frame.received_ns),
        "crc32": crc32,
        **frame.meta,
    }


def missing_line(place: Place, why: str) -> dict[str, Any]:
    """Make the line of a frame that never came."""
    return {"kind": "missing", "at": dataclasses.astuple(place), "why": why}


def stain_line(job: Job, status: str, why: str | None = None) -> dict[str, Any]:
    """Make the line of a prediction: `status` is "stained" or "pending"."""
    line: dict[str, Any] = {
        "kind": "stain",
        "status": status,
        "stain": job.stain,
        "at": [dataclasses.astuple(place) for place in job.targets],
        "from": [dataclasses.astuple(place) for place in job.sources],
        "live": job.live,
    }
    return line | ({"why": why} if why else {})


def stained_line(item: Stained, committed_ns: int, crc32: Sequence[int]) -> dict[str, Any]:
    """Make the line of a prediction whose commit has returned; `crc32` is of each output's uint16 bytes."""
    line = stain_line(item.job, "stained") | {
        "provider": item.provider,
        "net_ms": round(item.net_ms, 3),
        "host_to_host_ms": round(item.host_to_host_ms, 3),
    }
    if item.job.live:
        # A model of several planes can answer only once it has the last of them.
        received_ns = max(frame.received_ns for frame in item.job.frames)
        line["camera_to_screen_ms"] = _ms(item.shown_ns - received_ns)
        line["camera_to_disk_ms"] = _ms(committed_ns - received_ns)
    return line | {"crc32": list(crc32)}


def iso_time(time_s: float) -> str:
    """Write seconds since the epoch as UTC with milliseconds."""
    return datetime.fromtimestamp(time_s, tz=UTC).isoformat(timespec="milliseconds")


def _ms(duration_ns: int) -> float:
    return round(duration_ns / 1e6, 3)


def _tuple(value: Any) -> Any:
    return None if value is None else tuple(value)
