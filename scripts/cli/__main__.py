"""`./scripts/ledger`: what operators and auditors do from a shell. Straight to the store; no server need run."""

import os
import signal
import sys


def main() -> None:
    """A reader who closes the pipe ends this quietly, as he ends `git log`; what cannot be printed is an error."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # what is imported takes a second, and nothing is begun in it
    from scripts.cli.commands import app
    from scripts.cli.opening import CANNOT_READ_OR_WRITE

    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.umask(0o077)
    try:
        try:
            app(prog_name="./scripts/ledger")
        finally:
            sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left is not tried again at exit
        print(f"Cannot write: {error}", file=sys.stderr)
        sys.exit(CANNOT_READ_OR_WRITE)


if __name__ == "__main__":
    main()
