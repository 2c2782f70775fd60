"""``python -m benchmarks NAME [options]``: each NAME is a module of this package.

``--gpu`` is ``gpu``.
"""

import sys
from importlib import import_module

BENCHMARKS = (
    "ais", "bounds", "categories", "densities", "evaluation", "gpu", "labels", "many", "nodes",
    "ranks", "results", "scaling", "speed", "starts", "variance", "variants",
)  # fmt: skip


def main(argv: list[str]) -> int:
    """Runs the benchmark that the first argument names with the others."""
    if argv[:1] == ["--gpu"]:
        argv = ["gpu", *argv[1:]]
    if not argv or argv[0] not in BENCHMARKS:
        print(f"usage: python -m benchmarks NAME [options]; NAME: {', '.join(BENCHMARKS)}")
        return 2
    import_module(f"benchmarks.{argv[0]}").main(argv[1:])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
