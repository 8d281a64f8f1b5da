from api.service import Service
from store.audit_access import HOUR, record_access
from tests.store.given import Access, accesses


def test_a_reader_who_asks_again_within_the_hour_is_counted_in_one_row(service: Service):
    with service.database.transaction() as connection:
        for reader, asked, now in [
            ("key:a", "x", 5 * HOUR + 7),
            ("key:a", "x", 6 * HOUR - 1),
            ("key:a", "x", 6 * HOUR),
            ("key:a", "y", 5 * HOUR),
            ("key:b", "x", 5 * HOUR),
        ]:
            record_access(connection, reader, asked, now)
        assert accesses(connection) == [
            Access("key:a", "x", 5 * HOUR, 2),
            Access("key:a", "y", 5 * HOUR, 1),
            Access("key:b", "x", 5 * HOUR, 1),
            Access("key:a", "x", 6 * HOUR, 1),
        ]
