"""The append-only store. Importing any part of it registers the topic of every fact: all history can be read then."""

import domain.api_keys
import domain.bulk_revocation
import domain.user  # noqa: F401
