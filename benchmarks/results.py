"""Every variant on digits, MNIST and Fashion-MNIST, from five seeds, none selected.

Each run (a variant, a data set, a seed) is trained and evaluated on one thread, and written as
soon as it is finished, to one file per data set. A stopped command goes on where it was;
`--variants`, `--data`, `--seeds`, `--first-seed` and `--epochs` do a part. Runs of other settings,
versions, source or machine are refused, not mixed. `--runs` also keeps every training in a folder
of its own, so that one that was stopped goes on in its midst, and a finished one is measured again
without being trained again.

    python -m benchmarks results                       # digits, 45 runs
    python -m benchmarks results --data mnist fashion-mnist --data-root DIR
    python -m benchmarks results --table               # of what is there, without running anything
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.common import parser
from benchmarks.results_table import tables
from benchmarks.trainings import Filling, add_options

LENGTHS = {
    "mnist": {"epochs": 5, "batch_size": 128},
    "fashion-mnist": {"epochs": 5, "batch_size": 128},
}
"""Where trainings are not as long as the command line's: the same for all variants."""


def main(argv: list[str] | None = None) -> list[dict[str, Any]]:
    """Runs what is missing, and prints the tables.

    Args:
        argv: The command line.

    Returns:
        What the results files hold, one per data set.
    """
    import pyro_mivae as mi

    command = parser("results", __doc__)
    add_options(command)
    names = [*mi.VARIANTS]
    command.add_argument("--variants", nargs="+", choices=names, default=names, metavar="NAME")
    command.add_argument("--picture", type=Path, help="PNG of what is there")
    args = command.parse_args(argv)
    order, cells = ([{"variant": name} for name in of] for of in (names, args.variants))
    filling = Filling("results", order, cells, args, LENGTHS)
    contents = filling.fill()
    print(tables(contents))
    if args.picture is not None and contents:
        from benchmarks.results_picture import draw

        args.picture.parent.mkdir(parents=True, exist_ok=True)
        args.picture.write_bytes(draw(contents))
    for path in filling.paths.values():
        print(f"all runs: {path}" if path.exists() else f"no runs yet: {path}")
    return contents


if __name__ == "__main__":
    main()
