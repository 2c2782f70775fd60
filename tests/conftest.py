"""The process that hands tests out to others runs none, and starts without torch and Pyro."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput") or not config.getoption("tx", None):
        from . import fixtures

        config.pluginmanager.register(fixtures)
