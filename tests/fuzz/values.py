"""Values that a caller may give by mistake, drawn at random."""

import numpy as np
import torch

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
DTYPES = [torch.float32, torch.float64, torch.float16, torch.int64, torch.uint8, torch.bool]
FILLS = [0.0, 1.0, 0.5, -3.0, 250.0, float("nan"), float("inf")]


def tensor(rng):
    """A tensor or an array of some shape and kind, perhaps with values that are not finite."""
    if rng.random() < 0.03:
        return torch.ones(3, 2, dtype=torch.complex64)
    value = torch.full(rng.choice(SHAPES), rng.choice(FILLS)).to(rng.choice(DTYPES))
    return value.numpy() if rng.random() < 0.5 else value


def bent(x, how):
    """A valid tensor, with one thing wrong with it."""
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


WAYS = [
    *("row less", "dimension more", "flat", "transposed", "NaN", "infinite", "far", "array"),
    *("list", torch.float64, torch.float16, torch.int64, torch.uint8, torch.bool),
    torch.complex64,
]


def bad_values(valid, rng):
    """Names and values to take the place of valid ones: each argument by each kind in turn."""
    kinds = [lambda old: rng.choice(SCALARS), lambda old: rng.choice(COLLECTIONS)]
    kinds += [lambda old: tensor(rng), lambda old: bent(old, rng.choice(WAYS))]
    while True:
        turns = [
            (name, kind)
            for name, value in sorted(valid.items(), key=lambda item: item[0])
            for kind in (kinds if isinstance(value, torch.Tensor) else kinds[:-1])
        ]
        for name, kind in rng.sample(turns, len(turns)):
            yield name, kind(valid[name])
