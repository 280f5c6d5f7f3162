"""Converts a received prompt to a prompt on a panorama, and validates it."""

from __future__ import annotations

import numpy as np

from sap_ros.core.prompts import Prompt, from_pixels
from sap_ros.engine.axes import ImageAxes
from sap_ros.engine.events import Image, PromptGiven, Space
from sap_ros.engine.transforms import Stamped, Transform, Transforms


def locate(given: PromptGiven, image: Image, transforms: Transforms, fixed_frame: str) -> Transform:
    """The transform of a prompt's directions or positions to the frame of an image.

    If the prompt's stamp differs from the image's, the transform goes through ``fixed_frame``, if that is
    set: the object stayed in place in the world while the robot moved.

    Raises:
        ValueError: the transform is not available, or the image of pixels is no longer kept.
    """
    if given.space == Space.PIXELS:
        if given.stamp and image.stamp and given.stamp < image.stamp:
            raise ValueError(
                f"the image of the prompt, with a stamp of {_seconds(given.stamp)} s or before, is no longer "
                f"kept (keep_images); the newest image has the stamp {_seconds(image.stamp)} s"
            )
        return Transform()
    time = image.time_for(given.space, given.frame_id)
    apart = bool(fixed_frame and given.stamp and image.stamp and given.stamp != time)
    stamp = given.stamp + image.taken - time if apart else image.taken
    return transforms.lookup(
        Stamped(image.frame_id, image.taken),
        Stamped(given.frame_id, stamp),
        fixed_frame if apart else "",
    )


def prompt_on(
    given: PromptGiven,
    object_id: int,
    size: tuple[int, int],
    axes: ImageAxes,
    transform: Transform,
) -> Prompt:
    """Converts a received prompt to a prompt on a panorama.

    Args:
        given: the received prompt.
        object_id: the object's id; that of ``given`` may be 0.
        size: the panorama's (width, height).
        axes: axes of the image's frame.
        transform: transform from the prompt's frame to the image's, see :func:`locate`.

    Raises:
        ValueError: the prompt is invalid; the message says what would be valid.
    """
    if given.space not in list(Space):
        raise ValueError(
            f"the prompt's space is {given.space}; it must be 0 (PIXELS), 1 (DIRECTIONS) or "
            "2 (POSITIONS)"
        )
    points = np.asarray(given.points, np.float64).reshape(-1, 3)
    corners = np.asarray(given.box, np.float64).reshape(-1, 3)
    labels = np.asarray(given.labels)
    if not len(labels):
        labels = np.ones(len(points), np.int32)
    if len(labels) != len(points):
        raise ValueError(
            f"the prompt has {len(points)} points and {len(labels)} labels; it needs one label per point, "
            "or none"
        )
    if len(corners) not in (0, 2):
        raise ValueError(f"the prompt's box has {len(corners)} corners; it must have 2, or none")
    mask = given.mask() if given.mask is not None else None
    if given.space == Space.PIXELS:
        box = corners[:, :2].ravel() if len(corners) else None
        if mask is not None and not len(points) and box is None:
            return Prompt(object_id, mask=mask)
        made = from_pixels(object_id, points[:, :2], size, labels, box)
        return made if mask is None else made.extended(Prompt(object_id, mask=mask))
    move = transform.vectors if given.space == Space.DIRECTIONS else transform.points
    directions, box = (axes.from_frame(move(vectors)) for vectors in (points, corners))
    return Prompt(object_id, directions, labels, box if len(box) else None, mask)


def _seconds(stamp: int) -> str:
    return f"{stamp // 10**9}.{stamp % 10**9:09d}"
