"""Data sets as tensors: built in, from files of images or numbers, from folders of images."""

from pyro_mivae.data.arrays import read_csv, read_given, read_npy
from pyro_mivae.data.binarize import PROTOCOLS, binarize
from pyro_mivae.data.dataset import (
    CONDITION,
    FINGERPRINTS,
    Dataset,
    RawImages,
    keep_labels,
    resize_images,
    split_indices,
)
from pyro_mivae.data.files import read_folder, read_npz
from pyro_mivae.data.load import DATASETS, default_root, load_dataset, read_images

__all__ = [
    "CONDITION",
    "DATASETS",
    "FINGERPRINTS",
    "PROTOCOLS",
    "Dataset",
    "RawImages",
    "binarize",
    "default_root",
    "keep_labels",
    "load_dataset",
    "read_csv",
    "read_folder",
    "read_given",
    "read_images",
    "read_npy",
    "read_npz",
    "resize_images",
    "split_indices",
]
