"""From findings to verdicts and alerts; the only statistics with memory live here."""
