"""A run: the loop, its calls on one device or many, its checkpoints and what it tells."""
