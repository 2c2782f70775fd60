"""Data sets by name and by path."""

import gzip
import struct
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest
import torch

from pyro_mivae.data import default_root, load, load_dataset, read_images
from pyro_mivae.data.load import read_idx
from pyro_mivae.errors import DataError, OptionError


def write_idx(path, array):
    header = struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(
        f">{array.ndim}I", *array.shape
    )
    path.write_bytes(header + array.astype(np.uint8).tobytes())


@pytest.fixture
def serve():
    """Serves folders on this machine, since torchvision downloads from web servers alone."""
    servers = []

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    def serve(folder):
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
        Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def mnist_root(tmp_path):
    """Files of MNIST's format, with 12 training and 5 test images."""
    raw = tmp_path / "root" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 12), ("t10k", 5)):
        images = np.random.default_rng(count).integers(0, 256, (count, 28, 28))
        write_idx(raw / f"{part}-images-idx3-ubyte", images)
        write_idx(raw / f"{part}-labels-idx1-ubyte", np.arange(count) % 10)
    return tmp_path / "root"


def test_digits():
    digits = load_dataset("digits")
    assert digits.data_shape == (1, 8, 8)
    assert len(digits.x_train) + len(digits.x_test) == 1797
    assert digits.x_train.min() == 0
    assert digits.x_train.max() == 1
    counts = digits.y_test.bincount()
    assert counts.min() >= 35
    assert counts.max() <= 37
    assert digits.class_names == tuple("0123456789")


def test_mnist_keeps_its_own_test_set(mnist_root):
    mnist = load_dataset("mnist", root=mnist_root, image_size=14)
    assert mnist.x_train.shape == (12, 1, 14, 14)
    assert mnist.y_test.tolist() == [0, 1, 2, 3, 4]
    assert read_images("mnist", root=mnist_root).images.shape == (17, 1, 28, 28)


def test_mnist_that_is_cut_short(mnist_root):
    path = mnist_root / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(
        DataError,
        match="train-images-idx3-ubyte: it is not an IDX file of bytes in 3 dim.*, or cut",
    ):
        load_dataset("mnist", root=mnist_root)


@pytest.mark.parametrize(
    ("shape", "rest"),
    [
        ((2**32 - 1,) * 3, b"abc"),
        ((60000, 28, 28), b"abc"),
        ((1, 2, 2), b"abcde"),
        ((0, 28, 28), b""),
        ((4,), b"abcd"),
        ((1, 1, 2, 2), b"abcd"),
        ((1, 2, 2), b"\0" * 10**8),  # in 100 kB
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_idx_that_tells_another_size(tmp_path, shape, rest, packed):
    content = struct.pack(">BBBB", 0, 0, 8, len(shape)) + struct.pack(f">{len(shape)}I", *shape)
    path = tmp_path / ("a.gz" if packed else "a")
    path.write_bytes(gzip.compress(content + rest, 1) if packed else content + rest)
    with pytest.raises(DataError, match=f"cannot read .*{path.name}: "):
        read_idx(path, 3)


def test_labels_and_sizes_of_mnist_that_do_not_fit(mnist_root):
    raw = mnist_root / "MNIST" / "raw"
    write_idx(raw / "t10k-labels-idx1-ubyte", np.arange(5) + 6)
    with pytest.raises(DataError, match="has labels above 9"):
        read_images("mnist", root=mnist_root)
    write_idx(raw / "t10k-images-idx3-ubyte", np.zeros((5, 9, 9)))
    with pytest.raises(DataError, match="training and test images of different sizes"):
        read_images("mnist", root=mnist_root)


@pytest.mark.parametrize("place", ["", "MNIST", "MNIST/raw"])
def test_compressed_files_are_read_where_they_lie(mnist_root, tmp_path, place):
    expected = read_images("mnist", root=mnist_root)
    packed = tmp_path / "packed" / place
    packed.mkdir(parents=True)
    for file in (mnist_root / "MNIST" / "raw").iterdir():
        (packed / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
    before = sorted(p.name for p in packed.rglob("*"))
    found = read_images("mnist", root=tmp_path / "packed")
    assert torch.equal(found.images, expected.images)
    assert torch.equal(found.labels, expected.labels)
    assert sorted(p.name for p in packed.rglob("*")) == before
    (packed / "train-labels-idx1-ubyte.gz").write_bytes(b"\x1f\x8b cut short")
    with pytest.raises(DataError, match=r"cannot read .*train-labels-idx1-ubyte\.gz"):
        read_images("mnist", root=tmp_path / "packed")


def test_a_folder_of_another_set_is_not_read(mnist_root, monkeypatch):
    from torchvision.datasets import FashionMNIST

    monkeypatch.setattr(FashionMNIST, "mirrors", [])
    assert len(read_images("mnist", root=mnist_root / "MNIST").images) == 17
    with pytest.raises(DataError, match="fashion-mnist is not under"):
        read_images("fashion-mnist", root=mnist_root / "MNIST")


def test_download_goes_to_the_root(mnist_root, tmp_path, monkeypatch, serve):
    from torchvision.datasets import MNIST
    from torchvision.datasets.utils import calculate_md5

    archive = tmp_path / "archive"
    archive.mkdir()
    for file in (mnist_root / "MNIST" / "raw").iterdir():
        (archive / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
    monkeypatch.setattr(MNIST, "mirrors", [serve(archive)])
    sums = [(f.name, calculate_md5(f)) for f in sorted(archive.iterdir())]
    monkeypatch.setattr(MNIST, "resources", sums)
    root = tmp_path / "new" / "root"
    assert len(load_dataset("mnist", root=root).x_train) == 12
    assert [p.name for p in root.iterdir()] == ["MNIST"]
    monkeypatch.setattr(MNIST, "mirrors", [])
    assert len(load_dataset("mnist", root=root).x_train) == 12


def test_download_that_fails_leaves_nothing(tmp_path, monkeypatch):
    from torchvision.datasets import MNIST

    monkeypatch.setattr(MNIST, "mirrors", [])
    with pytest.raises(DataError, match="could not be downloaded; give its folder with root="):
        load_dataset("mnist", root=tmp_path / "new" / "root")
    assert list(tmp_path.iterdir()) == []


def test_npz_is_split_and_resized(tmp_path):
    labels = np.arange(40) % 2
    np.savez(tmp_path / "set.npz", images=np.random.rand(40, 10, 10), labels=labels)
    data = load_dataset(tmp_path / "set.npz", image_size=(8, 9))
    assert data.x_train.shape == (32, 1, 8, 9)
    assert data.y_test.bincount().tolist() == [4, 4]
    assert data.name == "set"


def test_folder_without_labels_has_none(tmp_path):
    from PIL import Image

    for k in range(5):
        Image.new("L", (8, 8), k).save(tmp_path / f"{k}.png")
    data = load_dataset(tmp_path)
    assert data.y_train is None
    assert data.y_test is None
    assert len(data.x_test) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnsit", "no data set, file or folder 'mnsit'; did you mean mnist"),
        ("nowhere.npz", "allowed is digits, mnist, fashion-mnist, sprites, a file ..npz"),
        (__file__, "is not a .npz or .npy or .csv file"),
    ],
)
def test_unknown_data(name, message):
    with pytest.raises(DataError, match=message):
        load_dataset(name)


@pytest.mark.parametrize("name", ["", "  ", "a\0b"])
def test_paths_of_nothing(name):
    with pytest.raises(OptionError, match="name_or_path=.*; allowed are paths"):
        load_dataset(name)
    with pytest.raises(OptionError, match="root=.*; allowed are paths"):
        read_images("digits", root=name)


def test_single_image(tmp_path):
    np.savez(tmp_path / "one.npz", images=np.zeros((1, 8, 8)))
    with pytest.raises(DataError, match="holds 1 image"):
        load_dataset(tmp_path / "one.npz")


def test_image_size_of_nothing():
    with pytest.raises(OptionError, match=r"image_size\[0\]=0; allowed are whole numbers from 1"):
        load_dataset("digits", image_size=(0, 8))


def test_root_by_default(monkeypatch, tmp_path):
    monkeypatch.setenv("PYRO_MIVAE_DATA", str(tmp_path))
    assert default_root() == tmp_path
    monkeypatch.delenv("PYRO_MIVAE_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert default_root() == tmp_path / "cache" / "pyro_mivae"


def test_every_named_set_says_what_it_is():
    assert all(reader.__doc__ for reader in load.DATASETS.values())
    assert torch.is_tensor(load_dataset("digits").x_train)
