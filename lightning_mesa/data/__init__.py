"""What to look at: distributions of items, episodes and logged values."""
