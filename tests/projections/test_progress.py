from projections.audit import AuditProjection
from projections.progress import status
from projections.shadow import SUFFIX, Shadow
from tests.projections.driver import Driver


def test_a_rebuild_that_was_interrupted_is_nobody_who_follows(driver: Driver):
    driver.sign_in()
    database = driver.service.database
    Shadow(database, AuditProjection(SUFFIX)).open(most=driver.head())
    with database.reading() as connection:
        followers = [follower.name for follower in status(connection, now=0).followers]
    assert followers and not [name for name in followers if SUFFIX in name]
