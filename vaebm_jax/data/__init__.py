"""Data sets, the order of images, and conditions (what is observed of an image)."""
