"""What data is worth: duplicates, leaks, wrong labels, learning curves, and what texts are made of. Numbers only."""
