"""Image files in folders."""

import weakref

import numpy as np
import pytest
import torch
from PIL import Image

from pyro_mivae.data import files, read_folder
from pyro_mivae.errors import DataError

RAMP = np.linspace(0, 1, 48, dtype=np.float32).reshape(8, 6)


def save(path, value, mode="L", size=(6, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)


def test_folder_of_images_in_natural_order(tmp_path):
    for k in (10, 2, 1):
        save(tmp_path / f"{k}.png", 10 * k)
    (tmp_path / "notes.txt").write_text("no image")
    raw = read_folder(tmp_path)
    assert raw.images.shape == (3, 1, 8, 6)
    torch.testing.assert_close(raw.images[:, 0, 0, 0] * 255, torch.tensor([10.0, 20.0, 100.0]))
    assert raw.labels is None


def test_folder_with_a_sub_folder_per_label(tmp_path):
    for label, count in (("b", 2), ("a", 1)):
        for k in range(count):
            save(tmp_path / label / f"{k}.png", 0)
    (tmp_path / "empty").mkdir()
    raw = read_folder(tmp_path)
    assert raw.labels.tolist() == [0, 1, 1]
    assert raw.class_names == ("a", "b")


@pytest.mark.parametrize(
    ("mode", "value", "pixel"),
    [
        ("1", 1, [1.0]),
        ("LA", (51, 255), [0.2]),
        ("I;16", 13107, [0.2]),
        ("RGB", (255, 0, 51), [1.0, 0.0, 0.2]),
        ("RGBA", (255, 0, 51, 255), [1.0, 0.0, 0.2]),
        ("P", 0, [0.0]),
    ],
)
def test_folder_reads_any_kind_of_png(tmp_path, mode, value, pixel):
    save(tmp_path / "a.png", value, mode)
    torch.testing.assert_close(read_folder(tmp_path).images[0, :, 0, 0], torch.tensor(pixel))


def test_folder_with_some_colour_is_all_rgb(tmp_path):
    save(tmp_path / "a.png", 51)
    save(tmp_path / "b.png", (255, 0, 0), "RGB")
    images = read_folder(tmp_path).images
    torch.testing.assert_close(images[0, :, 0, 0], torch.full((3,), 0.2))


def test_folder_of_several_sizes_needs_an_image_size(tmp_path):
    save(tmp_path / "a.png", 0)
    save(tmp_path / "b.png", 0, size=(9, 9))
    with pytest.raises(DataError, match="a.png is 8x6, b.png is 9x9; give all of them one size"):
        read_folder(tmp_path)
    assert read_folder(tmp_path, (10, 12)).images.shape == (2, 1, 10, 12)


def test_folder_of_images_beside_sub_folders(tmp_path):
    save(tmp_path / "a.png", 0)
    save(tmp_path / "sub" / "b.png", 0)
    with pytest.raises(DataError, match="both images and sub-folders"):
        read_folder(tmp_path)


def test_folder_without_images(tmp_path):
    with pytest.raises(DataError, match=r"holds no images; allowed are files ending in \.bmp"):
        read_folder(tmp_path)


def test_folder_with_a_broken_image(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    with pytest.raises(DataError, match="cannot read the image"):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    ("array", "tolerance"),
    [
        (RAMP, 1e-7),
        ((65535 * RAMP).astype(np.uint16), 1e-4),
        ((255 * RAMP).astype(np.uint8), 0.01),
    ],
)
def test_tiffs_of_floats_16_and_8_bits(tmp_path, array, tolerance):
    Image.fromarray(array).save(tmp_path / "a.tif")
    found = read_folder(tmp_path).images
    torch.testing.assert_close(found[0, 0], torch.from_numpy(RAMP), atol=tolerance, rtol=0)


@pytest.mark.parametrize(
    ("array", "name", "message"),
    [
        (255 * RAMP, "a.tif", r"a.tif has pixels from 0 to 255; allowed are floats in \[0, 1\]"),
        (RAMP - 0.1, "a.tif", "a.tif has pixels from -0.1"),
        (RAMP * np.nan, "a.tif", "a.tif has 48 pixels that are NaN"),
        (
            (255 * RAMP).astype(np.int32),
            "a.tif",
            "a.tif holds integers of 32 bits.* from 0 to 255",
        ),
        ((4095 * RAMP).astype(np.uint16), "a.png", "no value above 4095: they may hold 12 bits"),
        (np.zeros((8, 6, 4), np.uint8), "a.png", "a.png has transparent pixels"),
        (np.full((8, 6, 2), 254, np.uint8), "a.png", "a.png has transparent pixels"),
    ],
)
def test_images_whose_white_is_not_known(tmp_path, array, name, message):
    Image.fromarray(array).save(tmp_path / name)
    with pytest.raises(DataError, match=message):
        read_folder(tmp_path)


def test_images_are_turned_upright(tmp_path):
    wide, exif = np.zeros((6, 10, 3), np.uint8), Image.Exif()
    wide[:, :5] = 255
    exif[0x0112] = 6  # a quarter turn
    Image.fromarray(wide).save(tmp_path / "a.png", exif=exif)
    found = read_folder(tmp_path).images
    assert found.shape == (1, 3, 10, 6)
    assert found[0, 0, :, 0].tolist() == [1.0] * 5 + [0.0] * 5


@pytest.mark.parametrize("ending", ["tif", "gif", "webp", "png"])
def test_every_frame_is_an_image(tmp_path, ending):
    values = {"a": [10, 200, 90], "b": [50]}
    for label, greys in values.items():
        first, *rest = [Image.new("L", (6, 8), value) for value in greys]
        (tmp_path / label).mkdir()
        options = {"save_all": True, "append_images": rest} if rest else {}
        options |= {"lossless": True} if ending == "webp" else {}
        first.save(tmp_path / label / f"0.{ending}", **options)
    raw = read_folder(tmp_path, (8, 6))
    told = (raw.images[:, 0, 0, 0] * 255).round().int().tolist()
    assert told == [10, 200, 90, 50]
    assert raw.labels.tolist() == [0, 0, 0, 1]
    assert raw.images.shape[1] == (3 if ending == "webp" else 1)


def test_a_page_that_is_a_thumbnail_is_left_out(tmp_path):
    pages = [Image.new("L", (6, 8), value) for value in (10, 20)]
    pages[1].encoderinfo = {"tiffinfo": {254: 1}}
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    assert (read_folder(tmp_path).images * 255).unique().round().tolist() == [10]


def test_palettes_of_grey_stay_grey(tmp_path):
    for name, colours in (("grey", [0, 0, 0, 51, 51, 51]), ("red", [0, 0, 0, 51, 0, 0])):
        image = Image.frombytes("P", (8, 8), np.eye(8, dtype=np.uint8).tobytes())
        image.putpalette(colours)
        (tmp_path / name).mkdir()
        image.save(tmp_path / name / "a.png")
    grey_, red = (read_folder(tmp_path / name).images for name in ("grey", "red"))
    torch.testing.assert_close(grey_[0, 0], 0.2 * torch.eye(8))
    assert red.shape[1] == 3


@pytest.mark.parametrize("limit", [10, 30])  # PIL refuses 48 pixels, and warns of them
def test_a_picture_too_large_is_refused(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    save(tmp_path / "a.png", 0)
    with pytest.raises(DataError, match=rf"a.png has more than {limit} pixels, the limit"):
        read_folder(tmp_path)


def test_one_image_at_a_time_has_its_full_size(tmp_path, monkeypatch):
    """Of a folder and of a stack: what was read is resized and gone before the next is read."""
    frames = [Image.new("L", (60, 80), value) for value in range(5)]
    frames[0].save(tmp_path / "0.tif", save_all=True, append_images=frames[1:])
    for k in (1, 2, 3):
        save(tmp_path / f"{k}.png", k, size=(60, 80))
    kept, read = [], files._read_frame

    def watched(*args):
        assert not any(ref() is not None for ref in kept)
        pixels, most = read(*args)
        kept.append(weakref.ref(pixels))
        return pixels, most

    monkeypatch.setattr(files, "_read_frame", watched)
    assert read_folder(tmp_path, (8, 6)).images.shape == (8, 1, 8, 6)
    assert len(kept) == 8


def test_images_keep_their_order_and_are_grey_or_colour_together(tmp_path):
    for k in range(4):
        save(tmp_path / f"{k}.png", (k, 0, 0) if k == 2 else k, "RGB" if k == 2 else "L")
    found = (read_folder(tmp_path).images[:, :, 0, 0] * 255).round().int().tolist()
    assert found == [[0, 0, 0], [1, 1, 1], [2, 0, 0], [3, 3, 3]]


@pytest.mark.parametrize("ending", "png jpg gif tif bmp webp ppm".split())
def test_an_image_that_is_damaged_is_read_or_refused(tmp_path, damaged, ending):
    rng = np.random.default_rng(0)
    path = tmp_path / f"a.{ending}"
    Image.fromarray(rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)).save(path)
    assert damaged(path, lambda: read_folder(tmp_path, (8, 8))) > 5
