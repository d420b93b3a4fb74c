"""The command line: modes, flags, and the config file."""
