"""UserError: mistakes of the user, as opposed to bugs of the package."""


class UserError(ValueError):
    """A wrong setting, file or path: its text is one line that says what would be right.

    The command line prints only the text and exits with a non-zero status. Any other exception is
    a bug of this package and shows its traceback.
    """
