"""The command line, as ``python -m pyro_mivae``."""

from pyro_mivae.cli import main

if __name__ == "__main__":
    main()
