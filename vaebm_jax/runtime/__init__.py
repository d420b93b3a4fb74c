"""The process and its machine: errors, files, signals, other processes. Knows no model."""
