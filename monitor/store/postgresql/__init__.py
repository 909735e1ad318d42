"""A store in a PostgreSQL that several nodes share: each unit is written by its owner alone."""
