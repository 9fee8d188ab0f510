"""The one exception that means "the caller can mend this"."""


class InputError(ValueError):
    """A mistake in what the user gave: a name, a value, a file.

    Its message is one line that names the mistake and the way out. The command line prints it and
    exits with status 2; everything else that is raised is a defect of ours and keeps its traceback.
    """


def require(condition: bool, message: str) -> None:
    """Refuse a user's value that does not meet a condition.

    Raises:
        InputError: With this message, where the condition is false.
    """
    if not condition:
        raise InputError(message)
