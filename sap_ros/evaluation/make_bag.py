"""Makes a bag of panoramas from a folder of images or from a video file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from sap_ros.core.panorama import check_panorama
from sap_ros.evaluation.bags import BagWriter, Storage, header, make
from sap_ros.evaluation.datasets import read_labels
from sap_ros.files import read_panorama

_LARGEST_ID = np.iinfo(np.uint16).max

_PICTURES = (".jpg", ".jpeg", ".png", ".webp")


def write_bag(
    source: Path,
    out: Path,
    rate: float = 10.0,
    topic: str = "/image",
    frame_id: str = "camera",
    compressed: bool = True,
    truth: Path | None = None,
    storage: Storage = "mcap",
    limit: int | None = None,
    progress: Callable[[], None] = lambda: None,
) -> int:
    """Writes panoramas as a bag recorded by a camera.

    Args:
        source: folder of images, in the order of their names, or a video that OpenCV can read.
        out: the bag's folder, which must not exist.
        rate: images per second.
        topic: topic of the images; ``/compressed`` is appended if they are compressed.
        frame_id: frame id of the images.
        compressed: whether images are JPEG; if false, they are raw.
        truth: folder of instance images NAME.png, written to ``/truth`` with the images' stamps.
        storage: storage format of the bag.
        limit: maximum number of images.
        progress: called after each image.

    Returns:
        The number of images written.

    Raises:
        ValueError: there is no image, or one of them is not a panorama.
    """
    if rate <= 0:
        raise ValueError(f"the rate is {rate:g} images per second; it must be above 0")
    count, numbers = 0, _Numbers()
    with BagWriter(out, storage) as writer:
        for name, image in _images(source):
            if limit is not None and count >= limit:
                break
            # A stamp of 0 means no stamp, so recordings begin at 1 s.
            time = 10**9 + round(count * 1e9 / rate)
            head = header(time, frame_id)
            if compressed:
                writer.write(f"{topic}/compressed", time, _jpeg(image, head))
            else:
                writer.write(topic, time, _raw(image, "rgb8", head))
            if truth is not None and (truth / f"{name}.png").exists():
                labels = numbers.of_sixteen_bits(read_labels(truth / f"{name}.png"))
                writer.write("/truth", time, _raw(labels, "mono16", head))
            count += 1
            progress()
        if not count:
            raise ValueError(f"{source} holds no panorama ({', '.join(_PICTURES)}, or a video)")
    return count


class _Numbers:
    """Maps ids to 16 bits, in the same way for all label images of a bag."""

    def __init__(self) -> None:
        self._kept: set[int] = {0}
        self._replaced: dict[int, int] = {}

    def of_sixteen_bits(self, labels: np.ndarray) -> np.ndarray:
        """The label image (H, W) with 16-bit ids unchanged and larger ids replaced by unused ones.

        Raises:
            ValueError: there are too many ids, or an id has already been used as a replacement.
        """
        ids, places = np.unique(labels, return_inverse=True)
        self._kept |= {int(i) for i in ids if i <= _LARGEST_ID}
        for i in ids[ids > _LARGEST_ID]:
            self._replaced.setdefault(int(i), _LARGEST_ID - len(self._replaced))
        if self._kept & set(self._replaced.values()):
            raise ValueError(
                "the instance images have more ids, or larger ones, than fit into mono16"
            )
        numbers = [self._replaced.get(int(i), int(i)) for i in ids]
        return np.array(numbers, "<u2")[places].reshape(labels.shape)


def _images(source: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Name and RGB pixels of each panorama."""
    if source.is_dir():
        for path in sorted(p for p in source.iterdir() if p.suffix.lower() in _PICTURES):
            yield path.stem, read_panorama(path)
        return
    if not source.exists():
        raise ValueError(f"there is no file or folder {source}")
    video = cv2.VideoCapture(str(source))
    count = 0
    while True:
        good, frame = video.read()
        if not good:
            break
        image = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        check_panorama(image)
        yield f"{count:06d}", image
        count += 1
    video.release()


def _jpeg(image: np.ndarray, head: Any) -> Any:
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return make("sensor_msgs/msg/CompressedImage", header=head, format="jpeg", data=data.ravel())


def _raw(pixels: np.ndarray, encoding: str, head: Any) -> Any:
    pixels = np.ascontiguousarray(pixels)
    return make(
        "sensor_msgs/msg/Image", header=head, height=pixels.shape[0], width=pixels.shape[1],
        encoding=encoding, is_bigendian=0, step=pixels.strides[0],
        data=np.frombuffer(pixels.tobytes(), np.uint8),
    )  # fmt: skip
