"""The Lightning face of the monitor."""
