"""Attaching a monitor without code, and checking that it fits: configurations, the environment, the command line."""
