"""Values that a caller may give by mistake, drawn by hypothesis."""

import numpy as np
import torch
from hypothesis import strategies as st

HUGE = 10**13


class Unlike:
    """An object of no use."""


def nothing(*args, **kwargs):
    """A function of no use."""


SCALARS = [
    *(None, True, False, "", "x", "3", b"x", Unlike(), Unlike, nothing),
    *(-1, 0, 1, 2, 7, -HUGE, HUGE, 10**400),
    *(-1.0, 0.0, 0.5, 2.5, 1e300, float("nan"), float("inf"), float("-inf"), 1j),
    *(np.float32(0.5), np.int64(3), np.bool_(True), np.array("x"), np.array(None)),
]
COLLECTIONS = [
    *((), [], {}, set(), [1], (0,), (-1, 2), ("z",), ["z", "z"], [None], ("z", 3)),
    *({"z": 1}, {"z": None}, {1: 2}, {"nowhere": 0.5}, range(3), [[1, 2], [3]]),
]
SHAPES = [(), (0,), (1,), (3,), (0, 3), (3, 1), (3, 2), (5, 5), (2, 3, 4), (2, 1, 3, 4)]


def tensors():
    """Tensors and arrays of many shapes and kinds, some with values that are not finite."""
    dtypes = [torch.float32, torch.float64, torch.float16, torch.int64, torch.uint8, torch.bool]

    def build(shape, dtype, fill, array):
        value = torch.full(shape, fill).to(dtype)
        return value.numpy() if array else value

    fills = st.sampled_from([0.0, 1.0, 0.5, -3.0, 250.0, float("nan"), float("inf")])
    made = st.builds(build, st.sampled_from(SHAPES), st.sampled_from(dtypes), fills, st.booleans())
    return made | st.just(torch.ones(3, 2, dtype=torch.complex64))


def bent(value):
    """A valid tensor, with one thing wrong with it."""

    def spoil(x, how):
        match how:
            case "row less":
                return x[:-1] if x.dim() else x
            case "dimension more":
                return x[None]
            case "flat":
                return x.flatten()
            case "transposed":
                return x.transpose(0, -1) if x.dim() else x
            case "NaN":
                return torch.full_like(x, float("nan")) if x.is_floating_point() else x.float()
            case "infinite":
                return torch.full_like(x, float("inf")) if x.is_floating_point() else -x.long()
            case "far":
                return x * 1000
            case "array":
                return x.detach().numpy()
            case "list":
                return x.tolist()
        return x.to(how)

    ways = "row less,dimension more,flat,transposed,NaN,infinite,far,array,list".split(",")
    dtypes = [torch.float64, torch.float16, torch.int64, torch.uint8, torch.bool, torch.complex64]
    return st.builds(spoil, st.just(value), st.sampled_from([*ways, *dtypes]))


def bad_values(valid):
    """Values to take the place of a valid one."""
    anything = st.sampled_from(SCALARS) | st.sampled_from(COLLECTIONS) | tensors()
    return bent(valid) | anything if isinstance(valid, torch.Tensor) else anything
