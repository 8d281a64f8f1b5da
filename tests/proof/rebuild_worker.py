"""A rebuild in a process of its own, to be killed: `python -m tests.proof.rebuild_worker <url> <events a page>`.

Prints the position after each page; at the end, what came out.
"""

import sys

import api.service  # noqa: F401  (knows every topic)
from projections import shadow
from projections.rebuild import rebuild
from projections.sessions import SessionsProjection
from store.database import Database


def main(url: str, page: str) -> None:
    shadow.PAGE = int(page)
    comparison = rebuild(
        Database(url), SessionsProjection, report=lambda done, total: print("at", done, total, flush=True)
    )
    print("identical" if comparison.identical else comparison, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
