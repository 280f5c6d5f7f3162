"""files: what is read, and what is said of files that are no panorama."""

import errno
import os
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sap_ros.core.panorama import check_panorama
from sap_ros.files import LARGEST_IMAGE, image_size, read_panorama, write_image


def _save(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_colour_files_are_read_as_rgb(tmp_path, suffix, panorama):
    options = {"quality": 100} if suffix != "png" else {}
    pixels = read_panorama(_save(tmp_path / f"p.{suffix}", panorama, **options))
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - panorama).mean() < 3


def test_grey_and_palette_and_alpha_are_read_too(tmp_path, panorama):
    grey = read_panorama(_save(tmp_path / "g.png", panorama[..., 0]))
    np.testing.assert_array_equal(grey, np.repeat(panorama[..., :1], 3, axis=2))
    Image.fromarray(panorama).convert("P").save(tmp_path / "p.png")
    assert read_panorama(tmp_path / "p.png").shape == (256, 512, 3)
    rgba = np.dstack([panorama, np.full((256, 512), 9, np.uint8)])
    np.testing.assert_array_equal(read_panorama(_save(tmp_path / "a.png", rgba)), panorama)


def test_truncated_files_are_said(tmp_path, panorama):
    for suffix in ("jpg", "png", "webp"):
        path = _save(tmp_path / f"cut.{suffix}", panorama)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(ValueError, match=rf"cut.{suffix} cannot be read"):
            read_panorama(path)


@pytest.mark.parametrize(
    ("shape", "named"),
    [((256, 500, 3), "500x256"), ((1, 1, 3), "1x1"), ((100, 200, 3), "200x100")],
)
def test_what_is_no_panorama_is_named_with_its_file(tmp_path, shape, named):
    path = _save(tmp_path / "odd.png", np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match=f"odd.png: .*{named}"):
        read_panorama(path)


def test_deep_pixels_are_named(tmp_path):
    path = _save(tmp_path / "deep.png", np.zeros((256, 512), np.uint16))
    with pytest.raises(ValueError, match="8-bit"):
        read_panorama(path)


def test_no_file_and_no_image_are_said(tmp_path):
    with pytest.raises(ValueError, match="is no file"):
        read_panorama(tmp_path / "none.jpg")
    (tmp_path / "text.jpg").write_text("hello")
    with pytest.raises(ValueError, match="cannot be read"):
        read_panorama(tmp_path / "text.jpg")


def test_a_written_image_replaces_the_old_one_whole(tmp_path, panorama):
    path = tmp_path / "out.png"
    path.write_bytes(b"old")
    write_image(path, panorama)
    np.testing.assert_array_equal(read_panorama(path), panorama)
    assert list(tmp_path.iterdir()) == [path]


def test_labels_of_sixteen_bits_survive(tmp_path):
    labels = np.array([[0, 300], [65534, 1]], np.uint16)
    write_image(tmp_path / "l.png", labels)
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "l.png")), labels)


def test_a_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(OSError, match=r"No such file or directory: .*none"):
        write_image(tmp_path / "none" / "out.png", np.zeros((4, 4), np.uint8))


@pytest.mark.parametrize("side", [8, 2000])
def test_a_full_disk_is_noticed_and_leaves_the_former_file(tmp_path, side):
    """With small files, too, which fit into a buffer."""
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no /dev/full")
    path = tmp_path / "out.png"
    write_image(path, np.zeros((4, 4), np.uint8))
    before = path.read_bytes()
    (tmp_path / f".out.png.{os.getpid()}.part").symlink_to(full)
    with pytest.raises(OSError, match="No space left on device") as error:
        write_image(path, np.random.default_rng(0).integers(0, 255, (side, side), np.uint8))
    assert error.value.errno == errno.ENOSPC
    assert path.read_bytes() == before


def _png_of(width, height):
    """A PNG that says it has this size; its pixels are left out."""

    def chunk(kind, data):
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_the_size_is_read_from_files_and_bytes(tmp_path, panorama, suffix):
    path = _save(tmp_path / f"p.{suffix}", panorama)
    assert image_size(path) == (512, 256)
    assert image_size(path.read_bytes()) == (512, 256)


@pytest.mark.parametrize("size", [(32768, 16384), (20000, 10000), (8194, 4097), (4096, 8192)])
def test_an_image_that_is_too_large_is_refused_before_it_is_decoded(tmp_path, size):
    """At sizes beyond PIL's error for decompression bombs, its warning, and below both."""
    path = tmp_path / "huge.png"
    path.write_bytes(_png_of(*size))
    limit = Image.MAX_IMAGE_PIXELS
    said = f"{size[0]}x{size[1]}; 8192x4096 is the largest"
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=rf"huge\.png is {said}"):
            read_panorama(path)
        with pytest.raises(ValueError, match=f"the image is {said}"):
            image_size(path.read_bytes())
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert limit == Image.MAX_IMAGE_PIXELS


def test_the_largest_image_is_the_largest_panorama():
    width, height = LARGEST_IMAGE
    assert image_size(_png_of(width, height)) == LARGEST_IMAGE
    pixel = np.zeros((1, 1, 3), np.uint8)
    check_panorama(np.broadcast_to(pixel, (height, width, 3)))
    with pytest.raises(ValueError, match="can be used"):
        check_panorama(np.broadcast_to(pixel, (height + 1, width + 2, 3)))


@pytest.mark.parametrize("data", [b"", b"hello", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"])
def test_bytes_that_are_no_image_are_said(data):
    with pytest.raises(ValueError, match=r"^the image cannot be read as an image: [\w ]+$"):
        image_size(data)
