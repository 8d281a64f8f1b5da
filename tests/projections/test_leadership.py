from pathlib import Path

import pytest

from domain.errors import StoreUnavailable
from projections.leadership import leadership
from store.database import Database


@pytest.mark.parametrize("scheme", ["sqlite", "postgresql"])
def test_a_database_that_cannot_be_asked_is_not_led_by_another(tmp_path: Path, scheme: str):
    nowhere = {
        "sqlite": f"sqlite:///{tmp_path}/missing/ledger.db",
        "postgresql": f"postgresql+psycopg://nobody@/ledger?host={tmp_path}",
    }
    with pytest.raises(StoreUnavailable, match="cannot be asked"):
        leadership(Database(nowhere[scheme]), "rebuild").is_held()
