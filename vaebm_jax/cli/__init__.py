"""The command line: its modes, its flags, and the config file that it names."""
