"""Tables, counts and series from files, and from Datasets and DataLoaders of torch."""

import numpy as np
import pytest
import torch
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Subset,
    TensorDataset,
)

import pyro_mivae as mi
from pyro_mivae.data import read_csv, read_images, read_npy, read_npz
from pyro_mivae.errors import DataError, ShapeError

ROWS = np.array([[1.5, 2.0, -3.0], [4.0, 5e3, 6.25]])


@pytest.fixture
def write(tmp_path):
    def write(text, name="table.csv", **how):
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode(**how))
        return tmp_path / name

    return write


@pytest.mark.parametrize(
    "text",
    [
        "1.5,2,-3\n4,5e3,6.25\n",
        "1.5,2,-3\r\n4,5e3,6.25",
        "a,b,c\n1.5,2,-3\n4,5e3,6.25\n",
        "a,2,3\n 1.5, 2 ,-3\n\n4,5e3,6.25\n",
        '"a, b",b,"c"\n"1.5",2,-3\n4,5e3,6.25\n',
        "\ufeff1.5,2,-3\n4,5e3,6.25\n",
    ],
    ids=["plain", "windows", "header", "blanks", "quoted", "marked"],
)
def test_tables(write, text):
    raw = read_csv(write(text))
    torch.testing.assert_close(raw.images, torch.from_numpy(ROWS).float())
    assert (raw.labels, raw.class_names, raw.name) == (None, (), "table")


def test_a_column_of_labels(write):
    raw = read_csv(write("a,Label,b\n1,ten,2\n3,nine,4\n5,ten,6\n"))
    assert raw.images.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert raw.labels.tolist() == [1, 0, 1]
    assert raw.class_names == ("nine", "ten")
    raw = read_csv(write("labels,b\n10,2\n9,4\n10,6\n"))
    assert raw.class_names == ("9", "10")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no data"),
        ("a,b\n", "holds no data"),
        ("label\n1\n2\n", "holds no data"),
        ("a,label\n", "holds no data"),
        ("1,2\n3,x\n", r"line 2, column 2: 'x' is not a finite number"),
        ("a,b\n1,2\n3,\n", r"line 3, column 2 \('b'\): '' is not a finite number"),
        ("a,b\n1,2\n\n3,nan\n", r"line 4, column 2 \('b'\): 'nan' is not a finite"),
        ("1,2\n1e99,3\n", r"line 2, column 1: '1e99' is not a finite number of float32"),
        ("1,2\n3\n", "line 2: 1 columns, 2 in the first line"),
        ("a,b,c\n1,2\n", "line 2: 2 columns, 3 in the first line"),
        ("a,label\n1,x\n2,y,3\n", "line 3: 3 columns, 2 in the first line"),
        ("1;2\n3;4\n", "line 2, column 1 .*: '3;4' .*; separate the columns by commas"),
        (b"\xff\xfe1,2\n", "cannot read"),
    ],
)
def test_malformed_tables_are_one_message(write, text, message):
    path = write(text)
    with pytest.raises(DataError, match=message) as refused:
        read_csv(path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_damaged_tables_are_refused_or_read(write, damaged):
    path = write("a,b,label\n" + "".join(f"{i}.5,{i},{i % 3}\n" for i in range(40)))
    assert damaged(path, lambda: read_csv(path)) > 10


@pytest.mark.parametrize("dtype", [np.float64, np.uint8, np.int64, bool])
def test_arrays_are_kept_as_they_are(tmp_path, dtype):
    series = np.arange(24).reshape(2, 3, 4).astype(dtype)
    np.save(tmp_path / "series.npy", series)
    np.savez(tmp_path / "series.npz", data=series, labels=np.array(["b", "a"]))
    for raw in (read_npy(tmp_path / "series.npy"), read_npz(tmp_path / "series.npz")):
        assert raw.images.dtype == torch.float32
        np.testing.assert_array_equal(raw.images, series.astype(np.float32))
    assert raw.labels.tolist() == [1, 0]


def test_images_of_an_npz_come_before_other_arrays(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.ones((2, 4, 4)), data=np.zeros(3))
    assert read_npz(tmp_path / "a.npz").images.shape == (2, 1, 4, 4)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones(3), r"shape \(3,\); allowed is \(N, \*data_shape\); give values.reshape\(-1, 1"),
        (np.ones((0, 3)), r"shape \(0, 3\)"),
        (np.array([["a"]]), "dtype <U1; allowed are real numbers"),
        (np.ones((2, 2), complex), "dtype complex128"),
        (np.array([[1.0, 2.0], [np.nan, 0.0]]), r"holds nan at \[1, 0\]; allowed are finite"),
        (np.array([[1e99]]), r"holds 1e\+99 at \[0, 0\]"),
    ],
)
def test_bad_arrays(tmp_path, array, message):
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "a.npz", data=array)
    for read, name in ((read_npy, "a.npy"), (read_npz, "a.npz")):
        with pytest.raises(DataError, match=message):
            read(tmp_path / name)


def test_other_files_are_refused(tmp_path, write):
    with pytest.raises(
        DataError, match=r"table.txt is not a .npz or .npy or .csv file; allowed is"
    ):
        read_images(write("1,2", "table.txt"))
    np.savez(tmp_path / "a.npz", data=ROWS)
    (tmp_path / "a.npz").rename(tmp_path / "b.npy")
    with pytest.raises(DataError, match="holds several arrays; name it .npz"):
        read_npy(tmp_path / "b.npy")
    with pytest.raises(
        DataError, match="holds no images in .0, 1., but data of shape .3,.; leave"
    ):
        read_images(write("1.5,2,3\n4,5,6\n"), image_size=8)


def test_a_table_is_split_by_its_labels(write):
    text = "a,label\n" + "".join(f"{i},{i % 2}\n" for i in range(100))
    dataset = mi.load_dataset(write(text))
    assert dataset.data_shape == (1,)
    assert len(dataset.x_train) == 80
    assert dataset.y_test.bincount().tolist() == [10, 10]


class Items(Dataset):
    def __init__(self, x, make=lambda row: row):
        self.x, self.make = x, make

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.make(self.x[index])


class Stream(IterableDataset):
    def __init__(self, x):
        self.x = x

    def __iter__(self):
        return iter(self.x)


X = torch.linspace(0, 1, 300 * 6).reshape(300, 6)


@pytest.mark.parametrize(
    "given",
    [
        TensorDataset(X, torch.arange(300)),
        Items(X),
        Items(X, lambda row: (row, 3)),
        Items(X.numpy()),
        Subset(TensorDataset(X), range(300)),
        DataLoader(TensorDataset(X, torch.arange(300)), batch_size=7),
        DataLoader(TensorDataset(X), batch_size=7, shuffle=True, drop_last=True),
        DataLoader(Stream(X), batch_size=7),
        Stream(X),
    ],
    ids=lambda given: type(given).__name__,
)
def test_datasets_and_loaders_are_read_in_order(given):
    vae = mi.VAE((6,), latent_dim=2)
    assert torch.equal(vae.check_data(given), X)
    torch.testing.assert_close(vae.encode(given)["z"], vae.encode(X)["z"])


def test_a_dataset_trains_and_measures_as_its_tensor_does():
    histories = []
    for given in (X, Items(X, lambda row: (row, 1))):
        torch.manual_seed(0)
        vae = mi.VAE((6,), latent_dim=2)
        history = mi.fit(vae, given, epochs=2, validation=given)
        few = {"iwae_samples": 2, "generative_items": 0}
        histories.append((history["loss"], mi.evaluate(vae, given, **few)["elbo"]))
    assert histories[0] == histories[1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Items(X, lambda row: {"x": row}), "x yields items of type dict; let them be tensors"),
        (Items(X, lambda row: row[: int(row[0] * 6)]), "an? Items, cannot be read as one tensor"),
        (Items(X, lambda row: 1 / 0), "an? Items, cannot be read as one tensor: division by zero"),
        (Items(X[:0]), "cannot be read as one tensor"),
        (Items(X[:, :5]), r"data of shape \(300, 5\) given"),
    ],
)
def test_datasets_that_cannot_be_stacked(given, message):
    with pytest.raises((DataError, ValueError), match=message):
        mi.VAE((6,), latent_dim=2).check_data(given)


def test_a_dataset_beyond_memory_is_refused_as_it_is_read(monkeypatch):
    monkeypatch.setattr("pyro_mivae.inputs.free_memory", lambda: 10_000.0)
    with pytest.raises(DataError, match="does not fit into memory.*; give a torch.utils.data.Sub"):
        mi.VAE((6,), latent_dim=2).check_data(Items(X))


def test_a_loader_that_draws_some_of_its_items_is_read_as_it_draws():
    items = TensorDataset(X)
    few = DataLoader(items, sampler=RandomSampler(items, num_samples=20))
    assert mi.VAE((6,), latent_dim=2).check_data(few).shape == (20, 6)


def test_colour_images_with_the_channels_last():
    vae = mi.VAE((3, 8, 8), latent_dim=2)
    with pytest.raises(ShapeError, match=r"channels come first: give x.movedim\(-1, 1\)"):
        vae.encode(torch.rand(5, 8, 8, 3))


def test_a_table_keeps_the_names_of_its_columns(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("a,label,b c\n" + "\n".join(f"{i},{i % 2},{-i}" for i in range(10)))
    assert mi.load_dataset(path).column_names == ("a", "b c")
    path.write_text("\n".join(f"{i},{-i}" for i in range(10)))
    assert mi.load_dataset(path).column_names == ()


@pytest.mark.parametrize("kind", ["labels.npy", "labels.csv", "flags.npy", "rows.npy", "rows.csv"])
def test_conditions_are_labels_or_numbers_split_with_the_data(kind, tmp_path):
    data, file = tmp_path / "data.npy", tmp_path / kind
    values = np.arange(20) % (2 if kind == "flags.npy" else 12)
    np.save(data, values[:, None].repeat(3, 1))
    stored = values[:, None].repeat(3, 1) / 7 if "rows" in kind else values
    if file.suffix == ".npy":
        np.save(file, stored.astype(bool) if kind == "flags.npy" else stored)
    else:
        rows = [",".join(map(str, np.atleast_1d(row))) for row in stored]
        file.write_text("\n".join(["Label"] * ("labels" in kind) + rows))
    dataset = mi.load_dataset(data, given=file)
    for x, u in ((dataset.x_train, dataset.given_train), (dataset.x_test, dataset.given_test)):
        wanted = x / 7 if "rows" in kind else x[:, 0].long()
        torch.testing.assert_close(u, wanted)
    wanted = (3,) if "rows" in kind else (int(values.max()) + 1,)
    assert dataset.given_shape == wanted
    assert "condition" in dataset.fingerprints
    assert "condition" not in mi.load_dataset(data).fingerprints
