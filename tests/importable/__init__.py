"""A user's package, whose names are written in configurations by the tests."""
