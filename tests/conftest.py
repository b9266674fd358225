"""Property tests draw the same examples in every run, and are not judged by how fast the machine is."""

from hypothesis import settings

settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")
