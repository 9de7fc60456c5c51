"""The version, as the installed package's metadata say it."""

from importlib.metadata import version

__version__ = version("lossift")
