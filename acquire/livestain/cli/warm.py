"""`livestain warm`: a model made ready for this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from livestain._errors import ExperimentError
from livestain.cli.common import console

__all__ = ["warm"]


def warm(
    model: Annotated[str, typer.Argument(help="A shipped model's name or a package's folder.", show_default=False)],
    size: Annotated[str, typer.Option(help="The camera's frame in pixels, WIDTHxHEIGHT.")] = "2048x2048",
    provider: Annotated[str, typer.Option(help="auto, cpu, cuda, tensorrt or openvino.")] = "auto",
    precision: Annotated[str, typer.Option(help="fp32, bf16, fp16 or int8, where the package has it.")] = "fp32",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads. [default: all physical cores]")] = None,
) -> None:
    """Make a model ready for this machine, and say what a frame will cost.

    TensorRT builds an engine for minutes when it first meets a model, a frame size and a card. This does it before
    the experiment; the next start takes the engine from the cache.

    Example: livestain warm nuclei-demo --size 1024x1024 --provider auto
    """
    from pydantic import ValidationError

    from livestain._experiment import Stain
    from livestain._warm import warm_up

    width, height = _pixels(size)
    try:
        asked = Stain.model_validate(
            {"model": model, "channel": "any", "provider": provider, "precision": precision, "threads": threads}
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise ExperimentError(f"--{first['loc'][0]} is {first['input']!r}: {first['msg']}.") from error
    with console.status("") as status:
        done = warm_up(asked, height, width, lambda name: status.update(f"getting {name} ready ..."))
    console.print(f"model     {done.model} on {done.provider}", soft_wrap=True)
    console.print(f"ready     after {done.ready_s:.1f} s for frames of {width} x {height} px", soft_wrap=True)
    if done.engines is not None:
        console.print(f"engine    kept in {done.engines}", soft_wrap=True)
    console.print(
        f"a frame   {done.host_to_host_ms:.3g} ms ({done.net_ms:.3g} of it the network), so at most "
        f"{1000 / done.host_to_host_ms:.3g} frames/s live with nothing beside it",
        soft_wrap=True,
    )


def _pixels(size: str) -> tuple[int, int]:
    """Give width and height."""
    parts = size.lower().split("x")
    if len(parts) != 2 or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise ExperimentError(f"--size is {size!r}; give the camera's frame as WIDTHxHEIGHT, for example 2048x2048.")
    return int(parts[0]), int(parts[1])
