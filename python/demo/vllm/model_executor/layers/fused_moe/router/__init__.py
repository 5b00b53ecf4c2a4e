"""Who chooses the experts."""
