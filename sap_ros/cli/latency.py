"""`sap latency`: how late a camera's stamps are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sap_ros.cli.shared import CAMERA, PROJECTION, check_bag_packages


def latency(
    bag: Annotated[Path, typer.Argument(help="rosbag2 folder, or its .mcap or .db3 file.")],
    image: Annotated[
        str, typer.Option(help="Topic of the panoramas; not needed if there is only one.")
    ] = "",
    rates: Annotated[
        str, typer.Option(help="Topic of an Imu or Odometry; not needed if there is only one.")
    ] = "",
    longest: Annotated[float, typer.Option(help="Largest delay to look for, in s.")] = 1.0,
    projection: PROJECTION = "equirectangular",
    camera: CAMERA = "",
) -> None:
    """Estimate how late the images of a rosbag are stamped, from the robot's rotation: the node's parameter
    stamp_offset."""
    check_bag_packages()
    from math import degrees

    from rich.progress import Progress

    from sap_ros.camera_files import projection_of
    from sap_ros.evaluation.bags import Bag
    from sap_ros.evaluation.latency import camera_delay

    if not 0 < longest <= 10:
        raise ValueError(f"--longest is {longest:g} s; it must be above 0 and at most 10")
    opened = projection_of(projection, camera)
    with Bag(bag) as recorded, Progress(transient=True) as bars:
        bar = bars.add_task("Reading", total=None)
        found, notes = camera_delay(
            recorded, image, rates, longest, opened, lambda: bars.advance(bar)
        )
    typer.echo(
        f"stamp_offset: {found.seconds:.3f} s, standard deviation {found.stddev:.3f} s\n"
        f"residual {degrees(found.residual):.2f} deg/s, correlation {found.correlation:.3f}, from "
        f"{found.intervals} pairs of images"
    )
    for note in notes:
        typer.echo(f"note: {note}")
