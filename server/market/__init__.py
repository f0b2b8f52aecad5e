"""What is known of the market and the account, and how old it is; indicators from it."""
