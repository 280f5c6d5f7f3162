"""Reads and writes camera files: yaml that describes a camera with two fisheye lenses (docs/cameras.md)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import yaml

from sap_ros.core.fisheye import DualFisheye, Lens
from sap_ros.files import write_text

if TYPE_CHECKING:
    from sap_ros.core.projection import Projection

ProjectionName = Literal["equirectangular", "dual_fisheye"]
PROJECTIONS: tuple[ProjectionName, ...] = get_args(ProjectionName)

# By key: how many numbers it has, and its default; None: it must be given.
_CAMERA: dict[str, tuple[int, Any]] = {
    "picture_size": (2, None),
    "panorama_width": (1, 0.0),
    "distance": (1, math.inf),
    "blend": (1, 4.0),
    "any_size": (0, False),
    "lenses": (0, None),
}
_LENS: dict[str, tuple[int, Any]] = {
    "name": (0, None),
    "centre": (2, None),
    "focal_length": (2, None),
    "field_of_view": (1, None),
    "distortion": (4, (0.0, 0.0, 0.0, 0.0)),
    "yaw": (1, None),
    "pitch": (1, 0.0),
    "roll": (1, 0.0),
    "translation": (3, (0.0, 0.0, 0.0)),
}


def presets() -> dict[str, Path]:
    """The camera files of the package, by name."""
    package = Path(__file__).parent
    folders = (package / "config" / "cameras", package.parent / "config" / "cameras")
    folder = next(folder for folder in folders if folder.is_dir())
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def projection_of(name: str, camera_file: str) -> Projection:
    """The projection of a name, one of :data:`PROJECTIONS`, and a camera file.

    Args:
        name: the projection.
        camera_file: path of a camera file or name of a preset, for ``dual_fisheye``.

    Raises:
        ValueError: an unknown name, or a camera file that is missing, not needed or wrong.
    """
    # Needs torch, which Blender's environment has not.
    from sap_ros.core.projection import Equirectangular, TwoFisheyes

    if name not in PROJECTIONS:
        raise ValueError(f"projection is {name!r}; it must be one of {', '.join(PROJECTIONS)}")
    if name == "equirectangular":
        if camera_file:
            raise ValueError(
                f"a camera file is given ({camera_file}), and projection is equirectangular; set it to "
                "dual_fisheye"
            )
        return Equirectangular()
    if not camera_file:
        raise ValueError(
            "projection is dual_fisheye: it needs a camera file, or one of the presets "
            f"{', '.join(presets())}"
        )
    return TwoFisheyes(read_camera(camera_file))


def read_camera(source: str | Path) -> DualFisheye:
    """Reads a camera file, or a preset by its name.

    Raises:
        ValueError: there is no such file, or a value in it is impossible; the message names both.
    """
    path = Path(source)
    known = presets()
    if not path.is_file():
        if str(source) not in known:
            raise ValueError(
                f"there is no camera file {source}, and no preset of that name; there are "
                f"{', '.join(known)}"
            )
        path = known[str(source)]
    try:
        values = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid yaml: {' '.join(str(error).split())}") from error
    try:
        return _camera(values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def write_camera(path: Path, camera: DualFisheye, comment: str = "") -> None:
    """Writes a camera file; a temporary file is written first and then renamed."""
    values: dict[str, Any] = {"picture_size": list(camera.picture_size)}
    if camera.panorama_width:
        values["panorama_width"] = camera.panorama_width
    values["distance"] = camera.distance
    values["blend"] = _rounded(math.degrees(camera.blend))
    values["lenses"] = [
        {
            "name": lens.name,
            "centre": _rounded(lens.centre),
            "focal_length": _rounded(lens.focal_length),
            "field_of_view": _rounded(math.degrees(lens.fov)),
            "distortion": _rounded(lens.distortion),
            **{k: _rounded(math.degrees(getattr(lens, k))) for k in ("yaw", "pitch", "roll")},
            "translation": _rounded(lens.translation),
        }
        for lens in camera.lenses
    ]
    head = "".join(f"# {line}\n" for line in comment.splitlines())
    write_text(path, head + yaml.safe_dump(values, sort_keys=False, default_flow_style=None))


def _rounded(value: Any) -> Any:
    return [round(float(v), 6) for v in value] if isinstance(value, tuple) else round(value, 6)


def _camera(values: Any) -> DualFisheye:
    given = _checked(values, _CAMERA, "the camera")
    lenses = given["lenses"]
    if not isinstance(lenses, list) or len(lenses) != 2:
        raise ValueError("lenses must be a list of two lenses")
    if not isinstance(given["any_size"], bool):
        raise ValueError(f"any_size is {given['any_size']!r}; it must be true or false")
    width, height = given["picture_size"]
    for key, value in (
        ("picture_size", width),
        ("picture_size", height),
        ("panorama_width", given["panorama_width"]),
    ):
        if not value.is_integer():
            raise ValueError(f"{key} is {value:g}; it must be a whole number of pixels")
    one, other = (
        _lens(lens, place) for lens, place in zip(lenses, ("first", "second"), strict=True)
    )
    return DualFisheye(
        (one, other),
        (int(width), int(height)),
        int(given["panorama_width"]),
        given["distance"],
        math.radians(given["blend"]),
        given["any_size"],
    )


def _lens(values: Any, place: str) -> Lens:
    given = _checked(values, _LENS, f"the {place} lens")
    return Lens(
        str(given["name"]),
        given["centre"],
        given["focal_length"],
        math.radians(given["field_of_view"]),
        given["distortion"],
        math.radians(given["yaw"]),
        math.radians(given["pitch"]),
        math.radians(given["roll"]),
        given["translation"],
    )


def _checked(values: Any, keys: dict[str, tuple[int, Any]], what: str) -> dict[str, Any]:
    """The values of all keys: single numbers and tuples of numbers as float, the others as they are.

    Raises:
        ValueError: a key is unknown or missing, or a value has another type.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{what} must have the keys {', '.join(keys)}")
    if unknown := [str(key) for key in values if key not in keys]:
        raise ValueError(f"{what} has the unknown key {unknown[0]}; there are {', '.join(keys)}")
    given = {}
    for key, (count, default) in keys.items():
        if key not in values:
            if default is None:
                raise ValueError(f"{what} has no {key}")
            given[key] = default
            continue
        value = values[key]
        if count:
            numbers = value if isinstance(value, list) else [value]
            good = isinstance(value, list) == (count > 1) and len(numbers) == count
            if not good or not all(_is_number(number) for number in numbers):
                right = "a number" if count == 1 else f"a list of {count} numbers"
                raise ValueError(f"{key} of {what} is {value!r}; it must be {right}")
            value = float(value) if count == 1 else tuple(float(number) for number in numbers)
        given[key] = value
    return given


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
