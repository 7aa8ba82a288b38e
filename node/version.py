"""The version of the distribution this node runs."""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("wippy-cluster")
except PackageNotFoundError:
    VERSION = "0+source"
