import pytest


@pytest.fixture(scope="session")
def images(tiny, calibration):
    """Six of the calibration images, preprocessed."""
    return next(iter(calibration.batches(tiny, 6)))
