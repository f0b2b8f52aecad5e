"""The processes of the gateway: the supervisor and what it knows of its workers, and what the two share."""
