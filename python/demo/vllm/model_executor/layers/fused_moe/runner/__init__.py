"""Who calls them."""
