"""Where images come from, in which order, and what is known of them."""
