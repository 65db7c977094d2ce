import pytest
from report_examples import a_report

from orchestrator.records import Report


@pytest.fixture(scope="session")
def report() -> Report:
    return a_report()
