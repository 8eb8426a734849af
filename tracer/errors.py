"""What can go wrong, by who must act: the caller, the file, or the machine."""


class LemmataError(Exception):
    """Base of every error this project raises on purpose; its text says what to do."""


class UsageError(LemmataError):
    """The call is wrong: an argument, an order of calls, a run id."""


class FormatError(LemmataError):
    """A file is not what the format says: foreign, damaged, torn or too new."""


class RecordingError(LemmataError):
    """Recording could not go on: disk full, I/O error, writer stopped. Sealed data stay intact."""
