"""Files that are damaged on purpose."""

import warnings

import numpy as np
import pytest

from pyro_mivae.errors import DataError


@pytest.fixture
def damaged():
    def count(path, read):
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

    return count
