"""The version of the package: the extension's, since reading installed metadata would cost every import 15 ms."""

from lossift._native import __version__

__all__ = ["__version__"]
