"""A run: the loop, its calls on one device or many, its checkpoints, metrics and log."""
