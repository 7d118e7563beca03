"""Property tests: no deadline (the first call of a library is slow on a busy machine), the same examples every time."""

from hypothesis import settings

settings.register_profile("core", deadline=None, derandomize=True)
settings.load_profile("core")
