"""Images from `.npz` files and from folders."""

import io
import warnings
import weakref
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from pyro_mivae.data import folder, read_folder, read_npz
from pyro_mivae.errors import DataError, PyroMivaeWarning


@pytest.fixture
def write(tmp_path):
    def write(**arrays):
        path = tmp_path / "set.npz"
        np.savez(path, **arrays)
        return path

    return write


def grey(n=4, h=8, w=6):
    return (np.arange(n * h * w).reshape(n, h, w) % 256).astype(np.uint8)


def test_npz_grey_bytes(write):
    raw = read_npz(write(images=grey(), labels=np.array([3, 3, 7, 7]), more=np.ones(2)))
    assert raw.images.shape == (4, 1, 8, 6)
    torch.testing.assert_close(raw.images[:, 0] * 255, torch.from_numpy(grey()).float())
    assert raw.labels.tolist() == [0, 0, 1, 1]
    assert raw.class_names == ("3", "7")


def test_npz_colour_floats_and_text_labels(write):
    images = np.random.default_rng(0).random((3, 8, 6, 3))
    raw = read_npz(write(images=images, labels=np.array(["cat", "dog", "cat"])))
    assert raw.images.shape == (3, 3, 8, 6)
    assert raw.images.dtype == torch.float32
    torch.testing.assert_close(raw.images.permute(0, 2, 3, 1), torch.from_numpy(images).float())
    assert raw.class_names == ("cat", "dog")


@pytest.mark.parametrize("dtype", [np.uint8, bool, np.float16])
def test_npz_of_zeros_and_ones_is_binary(write, dtype):
    images = np.eye(8, dtype=dtype)[None].repeat(2, 0)
    assert read_npz(write(images=images)).images.unique().tolist() == [0.0, 1.0]


def test_npz_with_one_label_for_all_has_none(write):
    raw = read_npz(write(images=grey(), labels=np.zeros(4, int)))
    assert raw.labels is None
    assert raw.class_names == ()


def test_npz_with_factors(write):
    factors = np.array([[7, 0], [3, 0], [7, 1], [5, 2]], dtype=np.uint8)
    raw = read_npz(write(images=grey(), factors=factors))
    assert raw.factors.tolist() == [[2, 0], [0, 0], [2, 1], [1, 2]]
    assert raw.factor_names == ("factor_0", "factor_1")
    named = read_npz(write(images=grey(), factors=factors, factor_names=np.array(["a", "b"])))
    assert named.factor_names == ("a", "b")
    assert read_npz(write(images=grey(), factors=factors.astype(float))).factors is not None
    assert read_npz(write(images=grey())).factors is None


@pytest.mark.parametrize(
    "factors", [np.zeros(4, int), np.zeros((3, 2), int), np.zeros((4, 2)) + 0.5, np.zeros((4, 0))]
)
def test_npz_whose_factors_are_something_else(write, factors):
    with pytest.warns(PyroMivaeWarning, match=r"is left out; read are integers of shape \(4, F\)"):
        raw = read_npz(write(images=grey(), factors=factors))
    assert raw.factors is None
    assert raw.factor_names == ()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pictures": grey()}, "holds pictures, but no array named 'images'"),
        ({"images": grey()[:0]}, "is empty"),
        ({"images": grey()[0]}, r"shape \(8, 6\); allowed is \(N, H, W\)"),
        ({"images": grey().astype(np.int64)}, "dtype int64; allowed is uint8"),
        ({"images": np.full((2, 8, 8), 1.0001)}, "pixels from 1.0001 to 1.0001; allowed"),
        ({"images": grey(), "labels": np.arange(4) * 1e300}, "dtype float64; allowed are"),
        ({"images": grey(), "labels": np.full(4, np.inf)}, "dtype float64; allowed are"),
        ({"images": np.full((2, 8, 8), np.nan)}, "128 pixels that are NaN"),
        ({"images": np.full((2, 8, 8), 1.5)}, r"from 1.5 to 1.5; allowed are floats in \[0, 1\]"),
        ({"images": grey(), "labels": np.arange(3)}, r"shape \(3,\); allowed is \(4,\)"),
        ({"images": grey(), "labels": np.arange(4) + 0.5}, "dtype float64; allowed are integers"),
        ({"images": np.array([{}], dtype=object)}, "cannot read"),
    ],
)
def test_npz_that_is_wrong(write, arrays, message):
    with pytest.raises(DataError, match=message):
        read_npz(write(**arrays))


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut short"])
def test_npz_that_is_unreadable(tmp_path, content):
    path = tmp_path / "broken.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match="cannot read"):
        read_npz(path)


def test_npz_that_is_a_single_array(tmp_path):
    path = tmp_path / "one.npz"
    with path.open("wb") as file:
        np.save(file, grey())
    with pytest.raises(DataError, match="holds a single array"):
        read_npz(path)


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


# Channels, first or last


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 13])
def test_channels_that_come_first_are_never_taken_for_rows(write, channels):
    first = np.random.default_rng(0).random((2, channels, 16, 20))
    with pytest.raises(DataError, match=r"save np\.moveaxis\(images, 1, -1\)"):
        read_npz(write(images=first))
    raw = read_npz(write(images=np.moveaxis(first, 1, -1)))
    torch.testing.assert_close(raw.images, torch.from_numpy(first).float())


@pytest.mark.parametrize(
    ("shape", "ok"),
    [
        ((3, 3, 3), False),
        ((8, 8, 8), False),
        ((16, 16, 32), False),
        ((2, 8, 3), False),
        ((8, 2, 3), True),
        ((1, 32, 1), True),
        ((4, 4, 3), True),
    ],
)
def test_small_arrays_whose_channels_are_in_doubt_are_refused(write, shape, ok):
    path = write(images=np.zeros((2, *shape)))
    if ok:
        assert read_npz(path).images.shape == (2, shape[2], *shape[:2])
    else:
        with pytest.raises(DataError, match="cannot be told to be the channels"):
            read_npz(path)


def test_pixels_a_rounding_error_outside_are_put_on_the_ends(write):
    images = np.full((2, 8, 8), 0.5)
    images[0, 0, :2] = 1 + 1.2e-7, -1e-9
    assert read_npz(write(images=images)).images.aminmax() == (0, 1)


# Kinds of image files

RAMP = np.linspace(0, 1, 48, dtype=np.float32).reshape(8, 6)


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
    kept, read = [], folder._read_frame

    def watched(*args):
        assert not any(ref() is not None for ref in kept)
        pixels, most = read(*args)
        kept.append(weakref.ref(pixels))
        return pixels, most

    monkeypatch.setattr(folder, "_read_frame", watched)
    assert read_folder(tmp_path, (8, 6)).images.shape == (8, 1, 8, 6)
    assert len(kept) == 8


def test_images_keep_their_order_and_are_grey_or_colour_together(tmp_path):
    for k in range(4):
        save(tmp_path / f"{k}.png", (k, 0, 0) if k == 2 else k, "RGB" if k == 2 else "L")
    found = (read_folder(tmp_path).images[:, :, 0, 0] * 255).round().int().tolist()
    assert found == [[0, 0, 0], [1, 1, 1], [2, 0, 0], [3, 3, 3]]


# Files that are damaged, or made to do harm


def member(path, name, content, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(name, content)
    return path


def header(shape, dtype="|u1"):
    """An array's header without its content."""
    buffer = io.BytesIO()
    fields = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, fields)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("images.npy", header((10**5, 28, 10**8)), "Unable to allocate"),
        ("images.npy", header((10**9, 10**9, 10**9)), "set.npz as an .npz file: "),
        ("images.npy", header((2, 8, 8)), "set.npz as an .npz file: "),
        ("images", b"text", "its 'images' is no array"),
        ("images.npy", b"text", "its 'images' is no array|magic|pickle"),
        ("images.npy", b"\x93NUMPY\x01\x00v\x00{'descr': ", "set.npz as an .npz file: "),
    ],
)
def test_npz_whose_member_is_no_array(tmp_path, name, content, message):
    with pytest.raises(DataError, match=message) as caught:
        read_npz(member(tmp_path / "set.npz", name, content))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "images",
    [np.array(["a", "b"]), np.array("a"), np.array(1.0), np.full((2, 8, 8), 1j), np.zeros((2, 8))],
)
def test_npz_whose_images_are_something_else(write, images):
    with pytest.raises(DataError, match="'images' in .*set.npz has (shape|dtype)"):
        read_npz(write(images=images))


def test_npz_that_is_encrypted(write):
    path = write(images=grey())
    content = bytearray(path.read_bytes())
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + place] |= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="is encrypted, password required"):
        read_npz(path)


PACKED = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]


@pytest.mark.parametrize("compression", PACKED)
def test_npz_that_is_damaged_is_read_or_refused(tmp_path, compression):
    buffer = io.BytesIO()
    np.save(buffer, np.random.default_rng(0).integers(0, 256, (4, 5, 5), dtype=np.uint8))
    path = member(tmp_path / "set.npz", "images.npy", buffer.getvalue(), compression)
    assert damaged(path, lambda: read_npz(path)) > 50


@pytest.mark.parametrize("ending", "png jpg gif tif bmp webp ppm".split())
def test_an_image_that_is_damaged_is_read_or_refused(tmp_path, ending):
    rng = np.random.default_rng(0)
    path = tmp_path / f"a.{ending}"
    Image.fromarray(rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)).save(path)
    assert damaged(path, lambda: read_folder(tmp_path, (8, 8))) > 5


def damaged(path, read):
    """Flips bits and cuts the end, and counts how often the file is refused."""
    whole, rng, told = path.read_bytes(), np.random.default_rng(1), []
    for trial in range(120):
        content = bytearray(whole)
        if trial % 4:
            for place in rng.integers(0, len(whole), trial % 4):
                content[place] ^= 1 << int(rng.integers(8))
        else:
            del content[rng.integers(len(whole)) :]
        path.write_bytes(content)
        try:
            with warnings.catch_warnings(action="ignore"):
                read()
        except DataError as error:
            told.append(str(error))
    assert all(str(path.parent) in text and "\n" not in text for text in told)
    return len(told)
