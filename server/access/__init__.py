"""Who may read what: tokens as they are configured, and the rights that they give."""
