"""From files, folders and hubs to frozen splits."""

from tunesmith.data.dataset import CONVERSATIONS, LABELLED, TaskReader, read, read_unlabelled

__all__ = ["CONVERSATIONS", "LABELLED", "TaskReader", "read", "read_unlabelled"]
