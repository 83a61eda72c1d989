"""Fails when it is imported."""

raise OSError("the disk is on fire")
