"""The one class of mistakes that are the user's and not ours."""


class UserError(ValueError):
    """A wrong setting, file or path: its text is one line that says what would be right.

    The command line prints the text alone and exits with a non-zero status. Every other
    exception is a defect of this package and keeps its traceback.
    """
