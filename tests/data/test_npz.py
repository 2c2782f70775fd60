"""Images, labels and factors from `.npz` files."""

import io
import zipfile

import numpy as np
import pytest
import torch

from pyro_mivae.data import read_npz
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
    with pytest.warns(
        PyroMivaeWarning, match=r"is left out; allowed are integers of shape \(4, F\)"
    ):
        raw = read_npz(write(images=grey(), factors=factors))
    assert raw.factors is None
    assert raw.factor_names == ()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pictures": grey()}, "holds pictures, but no array named 'images' or 'data'; rename"),
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
        with pytest.raises(DataError, match="the axis of the channels is unclear"):
            read_npz(path)


def test_pixels_a_rounding_error_outside_are_put_on_the_ends(write):
    images = np.full((2, 8, 8), 0.5)
    images[0, 0, :2] = 1 + 1.2e-7, -1e-9
    assert read_npz(write(images=images)).images.aminmax() == (0, 1)


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
        ("images", b"text", "its 'images' is not an array"),
        ("images.npy", b"text", "its 'images' is not an array|magic|pickle"),
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
def test_npz_that_is_damaged_is_read_or_refused(tmp_path, damaged, compression):
    buffer = io.BytesIO()
    np.save(buffer, np.random.default_rng(0).integers(0, 256, (4, 5, 5), dtype=np.uint8))
    path = member(tmp_path / "set.npz", "images.npy", buffer.getvalue(), compression)
    assert damaged(path, lambda: read_npz(path)) > 50
