"""Each look at the audit log is told in the security log and counted in `audit_access` (OBS-02, T-25)."""

import json
import logging
from typing import Any

from api.credentials import Authorized
from api.service import Service
from store.api_keys import Scope
from store.audit_access import record_access
from store.database import store_errors

_log = logging.getLogger("ledger.security")


def sees_people(by: Authorized) -> bool:
    """Whether names and client details are for him."""
    return Scope.AUDIT_PERSONAL in by.scopes


def note_access(service: Service, by: Authorized, call: str, **asked: Any) -> None:
    """Before anything is read: who cannot be recorded gets nothing. Raises `StoreUnavailable`. Not for the loop.

    `asked` is without personal data: a user stands in it as his stream.
    """
    told = {"call": call, "personal": sees_people(by), **asked}
    text = json.dumps({name: value for name, value in told.items() if value is not None}, default=str, sort_keys=True)
    with store_errors(), service.database.transaction() as connection:
        record_access(connection, by.name, text, service.clock.micros())
    _log.info("the audit log is read", extra={"fields": {"reader": by.name, "asked": text}})
