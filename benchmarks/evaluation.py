"""How long the evaluation that every run ends with takes, part by part, and the memory it needs.

Each variant is trained for an epoch, for its codes to be such, and evaluated as
``pyro-mivae evaluate RUN`` does it: on test images with labels, probes and judge learning on the
training images. Each evaluation has a process of its own, one for time and one for memory (what is
freed goes back to the system at once there, which is slow). Seconds are those on the clock, and
the processor's, of all threads; memory is how far the process grew beyond model and images.

    python -m benchmarks evaluation --data mnist --data-root DIR
    python -m benchmarks evaluation --data sprites --variants vae cat --images 3600
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, machine, parser, write
from benchmarks.memory import reset_resident, resident

LEARNED = 10_000  # images that a model is trained on
START = 200  # steps of the categories' start
RETURNING = {"MALLOC_MMAP_THRESHOLD_": "262144", "MALLOC_TRIM_THRESHOLD_": "262144"}
"""Lets what is freed go back to the system at once, so that it does not count as needed."""


def main(argv: Sequence[str]) -> dict[str, Any]:
    """Measures, prints a table, and writes results as JSON."""
    command = parser("evaluation", __doc__)
    command.add_argument("--data", default="mnist")
    command.add_argument("--data-root")
    variants = ["vae", "infocat", "critic-infomax"]
    command.add_argument("--variants", nargs="+", default=variants, metavar="NAME")
    command.add_argument("--images", nargs="+", type=int, default=[2500, 10_000], metavar="N")
    command.add_argument("--threads", type=int, default=2)
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--out", type=Path)
    options = command.parse_args(argv)
    out = options.out or RESULTS / f"evaluation-{options.data}-{date.today()}.json"
    settings = {
        "data": options.data,
        "data_root": options.data_root,
        "threads": options.threads,
        "seed": options.seed,
    }
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for variant in options.variants:
            one = {**settings, "variant": variant, "weights": str(Path(folder) / variant)}
            _apart({**one, "images": None})
            for images in options.images:
                asked = {**one, "images": images}
                row = {"variant": variant, "images": images, **_apart(asked)}
                row["mib"] = _apart(asked, RETURNING)["mib"]
                rows.append(row)
                print(_line(row), flush=True)
    shown = {key: value for key, value in settings.items() if key != "data_root"}
    content = {
        "command": _command(options),
        "settings": shown,
        "machine": machine(),
        "rows": rows,
    }
    write(out, content)
    print(table(rows))
    print(f"written to {out}")
    return content


def _command(options: argparse.Namespace) -> str:
    """The command that measures the same elsewhere."""
    root = " --data-root DIR" if options.data_root else ""
    images = " ".join(map(str, options.images))
    return (
        f"python -m benchmarks evaluation --data {options.data}{root} --variants "
        f"{' '.join(options.variants)} --images {images} --threads {options.threads} "
        f"--seed {options.seed}"
    )


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Lays out the parts of every evaluation.

    Args:
        rows: What was measured.

    Returns:
        Markdown.
    """
    parts = list(dict.fromkeys(name for row in rows for name in row["parts"]))
    lines = [
        "| variant | images | seconds (of the processor) | MiB | " + " | ".join(parts) + " |",
        "| --- " * (4 + len(parts)) + "|",
    ]
    for row in rows:
        cells = [
            row["variant"],
            f"{row['images']:,}",
            f"{row['wall']:.1f} ({row['cpu']:.1f})",
            f"{max(row['mib'].values()):.0f}",
            *(_cell(row["parts"].get(name)) for name in parts),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(part: dict[str, float] | None) -> str:
    return "–" if part is None else f"{part['wall']:.1f} ({part['cpu']:.1f})"


def _line(row: dict[str, Any]) -> str:
    return (
        f"{row['variant']}, {row['images']} images: {row['wall']:.1f} s, of the processor "
        f"{row['cpu']:.1f} s, {max(row['mib'].values()):.0f} MiB, load {row['load']:.1f} before"
    )


def _apart(one: dict[str, Any], environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Trains, or evaluates, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.evaluation", json.dumps(one)]
    everything = {**os.environ, **(environment or {})}
    ran = subprocess.run(command, capture_output=True, text=True, env=everything)
    if ran.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{ran.stderr}")
    result: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return result


def _one(
    data: str,
    data_root: str | None,
    threads: int,
    seed: int,
    variant: str,
    weights: str,
    images: int | None,
) -> dict[str, Any]:
    """Trains and keeps a model, or evaluates it on so many images."""
    import torch

    import pyro_mivae as mi

    torch.set_num_threads(1 if images is None else threads)
    torch.manual_seed(seed)
    given = mi.load_dataset(data, root=data_root)
    made = mi.VARIANTS[variant]
    options = {"warm_start": START} if "cat" in variant else {}
    vae = made(given.data_shape, **options)
    if images is None:
        mi.fit(vae, given.x_train[:LEARNED], epochs=1, seed=seed, device="cpu", engine="eager")
        torch.save(vae.state_dict(), weights)
        return {}
    vae.load_state_dict(torch.load(weights, weights_only=True))
    return _measure(vae, given, images)


def _measure(vae: Any, given: Any, images: int) -> dict[str, Any]:
    import pyro_mivae as mi
    from pyro_mivae.progress import listening
    from pyro_mivae.runs.outputs import EVALUATION_BATCH
    from pyro_mivae.training import suitable_threads

    def some(count: int) -> dict[str, Any]:
        known = {"labels": given.y_test, "factors": given.factors_test}
        return {name: None if of is None else of[:count] for name, of in known.items()}

    x = given.x_test[:images]
    train = (given.x_train, given.y_train, given.factors_train)
    parts: dict[str, dict[str, float]] = {}
    started: set[str] = set()
    load = os.getloadavg()[0]
    base, begun = 0.0, (0.0, 0.0)

    def listen(what: str, done: int, total: int) -> None:
        nonlocal begun
        if (done, total) == (0, 1):
            reset_resident()
            started.add(what)
            begun = time.perf_counter(), time.process_time()
        elif total == 1 and what in started:
            wall, cpu = time.perf_counter() - begun[0], time.process_time() - begun[1]
            parts[what] = {"wall": wall, "cpu": cpu, "mib": resident() - base}

    quick = {"iwae_samples": 2, "generative_items": 2, "generative_samples": 4}
    mi.evaluate(
        vae, x[:100], train=train, **some(min(100, images)), **quick
    )  # libraries are loaded once
    reset_resident()
    base = resident()
    wall, cpu = time.perf_counter(), time.process_time()
    with listening(listen), suitable_threads(vae, EVALUATION_BATCH):
        found = mi.evaluate(vae, x, train=train, **some(images))
    return {
        "wall": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
        "mib": {name: part.pop("mib") for name, part in parts.items()},
        "load": load,
        "parts": parts,
        "information": {
            name.removeprefix("information, "): seconds
            for name, seconds in found.seconds.items()
            if name.startswith("information, ")
        },
        "protocol": found.protocol["information"],
    }


if __name__ == "__main__":
    print(json.dumps(_one(**json.loads(sys.argv[1]))))
