from hypothesis import settings

# The first call into a numerical library loads it: time limits on single examples would fail at random.
settings.register_profile("numerical", deadline=None)
settings.load_profile("numerical")
