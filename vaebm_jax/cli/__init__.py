"""The command line: its flags, and the config file that it names."""
