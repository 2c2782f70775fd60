"""Training on a GPU: the targets first, in under seven minutes.

Each contender and each round of turns is written to the results file at once. A run that is cut
short or killed keeps what it has; the same command goes on from there. Steps include the fetching
of the batch and, for ours, the comparisons with the program and the costs of an epoch. Before a
hand-written loss is timed it is checked to equal the variant's, gradient included.

    python -m benchmarks gpu --out FILE --data-root DIR
    python -m benchmarks gpu --out FILE --parts check step
    python -m benchmarks gpu --smoke        all of it on the CPU, in miniature
"""

from __future__ import annotations

import signal
import time
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import common
from benchmarks.common import RESULTS, machine

if TYPE_CHECKING:
    from torch import Tensor

    from benchmarks.gpu_parts import Part
    from benchmarks.gpu_race import Bench

SECONDS = 410.0
IDX = "train-images-idx3-ubyte"


def load_images(root: Path | None, count: int, smoke: bool) -> tuple[Tensor, str]:
    """Returns images, and what they are.

    Args:
        root: Folder of MNIST's IDX files, or one above it; None makes noise.
        count: How many.
        smoke: True for noise of 8 x 8 pixels and not of MNIST's size.

    Raises:
        SystemExit: If MNIST is not there.
    """
    import torch

    from pyro_mivae.data.load import find_idx, read_idx

    if root is None:
        side = 8 if smoke else 28
        noise = torch.rand(count, 1, side, side, generator=torch.Generator().manual_seed(1))
        return noise, f"uniform noise, {count} x 1 x {side} x {side}"
    folders = [root / "MNIST" / "raw", root / "MNIST", root / "raw", root]
    path = find_idx(folders, IDX)
    if path is None:
        raise SystemExit(
            f"no file {IDX} or {IDX}.gz is in {', '.join(map(str, folders))}; give --data-root "
            "the folder that holds it, or leave it out to train on noise"
        )
    images = read_idx(path, 3)[:count].float().div_(255)[:, None]
    return images, f"MNIST, {len(images)} training images"


def run_part(bench: Bench, name: str, part: Part) -> None:
    """Measures the cells of a part that are missing; what fails is noted, and leaves the rest."""
    from benchmarks.gpu_contenders import free
    from benchmarks.gpu_race import failures_noted
    from benchmarks.gpu_results import summary

    results = bench.results
    found, cells = results.part(name, part.about), part.cells(bench.scale)
    for key, measure in cells.items():
        cell = None if bench.is_over else results.cell(name, key)
        if cell is None:
            continue
        started, whole = time.perf_counter(), True
        with failures_noted(cell):
            whole = measure(bench, cell) is not False
        cell["done"] = whole
        free()
        cell["took"] = round(cell.get("took", 0.0) + time.perf_counter() - started, 1)
        results.save()
    print(summary(name, found), flush=True)
    left = [key for key in cells if key not in found["cells"]]
    if left:
        print(f"  no time was left for {', '.join(left)}: run it again, it goes on there")


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measures what is missing, and prints all."""
    started = time.perf_counter()
    parser = common.parser("gpu", __doc__)
    parser.add_argument("--parts", nargs="+", help="all if omitted")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="after which it ends")
    parser.add_argument("--smoke", action="store_true", help="on the CPU, in miniature")
    parser.add_argument("--data-root", type=Path, help="folder of MNIST; noise if omitted")
    where = f"file of all results  [default: {RESULTS}/gpu-DATE.json]"
    parser.add_argument("--out", type=Path, help=where)
    args = parser.parse_args(argv)
    import torch

    if args.smoke:
        torch.set_num_threads(1)
    elif not torch.cuda.is_available():
        raise SystemExit("no CUDA device is available; --smoke runs the parts on the CPU")
    from benchmarks.finished import source
    from benchmarks.gpu_contenders import CONTENDERS
    from benchmarks.gpu_parts import GPU, PARTS, SMOKE
    from benchmarks.gpu_race import Bench
    from benchmarks.gpu_results import Results, table

    common.check_names(parser, "--parts", args.parts or (), PARTS)
    scale = SMOKE if args.smoke else GPU
    images, data = load_images(args.data_root, scale.images, args.smoke)
    header = {
        "machine": machine() | {"cuda": torch.version.cuda},
        "scale": vars(scale),
        "data": data,
    }
    path = args.out or RESULTS / f"gpu-{'smoke-' * args.smoke}{date.today()}.json"
    results = Results(path, header, f"{source()} {source(Path(__file__).parent)}")
    results.content["contenders"] = {name: about for name, (_, about) in CONTENDERS.items()}
    bench = Bench(scale, images.to(scale.device), results, 0.0)
    end = started + args.seconds
    before = signal.signal(signal.SIGALRM, _stop)
    signal.setitimer(signal.ITIMER_REAL, max(end - time.perf_counter(), 1e-3))
    try:
        for name in args.parts or PARTS:
            bench.ends = min(end, time.perf_counter() + PARTS[name].seconds)
            run_part(bench, name, PARTS[name])
    except KeyboardInterrupt:
        print("\nstopped; run it again, it goes on there")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    print(table(results.content.get("targets", [])))
    print(f"\nresults: {path}")
    return results.content


def _stop(number: int, frame: Any) -> None:
    raise KeyboardInterrupt
