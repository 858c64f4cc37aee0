"""From files, folders and hubs to frozen splits."""

from tunesmith.data.dataset import read, read_unlabelled

__all__ = ["read", "read_unlabelled"]
