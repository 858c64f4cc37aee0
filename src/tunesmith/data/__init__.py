"""From files, folders and hubs to frozen splits."""

from tunesmith.data.dataset import CONVERSATIONS, LABELLED, NUMBERS, TaskReader, read, read_unlabelled

__all__ = ["CONVERSATIONS", "LABELLED", "NUMBERS", "TaskReader", "read", "read_unlabelled"]
