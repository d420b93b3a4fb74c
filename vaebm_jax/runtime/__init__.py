"""The process and its machine: errors, files, signals, other processes. Independent of models."""
