"""From files, folders and hubs to frozen splits."""

from tunesmith.data.dataset import CONVERSATIONS, LABEL_LISTS, LABELLED, NUMBERS, TaskReader, read, read_unlabelled

__all__ = ["CONVERSATIONS", "LABELLED", "LABEL_LISTS", "NUMBERS", "TaskReader", "read", "read_unlabelled"]
