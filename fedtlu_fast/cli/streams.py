"""What the command writes must not end its work: a full disk, a pipe that nobody reads, a closed terminal.

Work goes on and its files are written; how writing to standard output ended is said, and the exit code shows
it, when the command is done. What goes to standard error is for reading along: nothing depends on it.
"""

from __future__ import annotations

import errno
import io
import os
import sys
import time
from typing import TYPE_CHECKING, TextIO

from fedtlu_fast.errors import FedtluError, InputError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

BROKEN_PIPE = 141
"""Exit code of a command whose reader went away, as if the signal SIGPIPE had ended it."""


class Output(io.RawIOBase):
    """A file descriptor; after the first error what is written is thrown away.

    Attributes:
        error: the first.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.error: OSError | None = None

    def fileno(self) -> int:
        """See `io.RawIOBase.fileno`."""
        return self.descriptor

    def isatty(self) -> bool:
        """See `io.RawIOBase.isatty`."""
        return os.isatty(self.descriptor)

    def writable(self) -> bool:
        """See `io.RawIOBase.writable`."""
        return True

    def write(self, data: ReadableBuffer) -> int:
        """See `io.RawIOBase.write`."""
        while self.error is None:
            try:
                return os.write(self.descriptor, data)
            except BlockingIOError:  # a terminal or a pipe that another program has made so
                time.sleep(0.01)
            except OSError as error:
                self.error = error
        return memoryview(data).nbytes


def take_over() -> Output | None:
    """Puts `Output` under the process's own streams; None where standard output is something else (in tests).

    Raises:
        InputError: standard output is closed.
    """
    for descriptor in (0, 2):
        # A file that is opened later would get the number, and what is for the terminal would go into it.
        if not _is_open(descriptor):
            os.open(os.devnull, os.O_RDWR)
    if sys.stderr is None or sys.stderr is sys.__stderr__:
        sys.stderr, _ = _over(2, sys.stderr)
    if sys.stdout is None:
        os.open(os.devnull, os.O_WRONLY)
        raise InputError("standard output", "closed", "a terminal, a file or a pipe", "Use > /dev/null.")
    if sys.stdout is not sys.__stdout__:
        return None
    sys.stdout, output = _over(1, sys.stdout)
    return output


def finish(output: Output | None, code: int) -> int:
    """The exit code of a command, after what it has written is out.

    Args:
        output: of `take_over`.
        code: as the command came to it.

    Raises:
        FedtluError: not everything could be written.
    """
    sys.stdout.flush()
    if output is None or output.error is None or code:
        return code
    if output.error.errno in (errno.EPIPE, errno.ECONNRESET):
        return BROKEN_PIPE
    raise FedtluError(f"standard output could not be written: {output.error.strerror}")


def _over(descriptor: int, stream: TextIO | None) -> tuple[TextIO, Output]:
    output = Output(descriptor)
    text = io.TextIOWrapper(
        io.BufferedWriter(output),
        encoding=stream.encoding if stream is not None else "utf-8",
        errors="replace",  # a terminal that cannot show a sign is no reason to fail
        line_buffering=descriptor == 2 or output.isatty(),
        write_through=descriptor == 2,
    )
    return text, output


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
