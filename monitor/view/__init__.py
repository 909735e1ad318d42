"""What is known, as it is shown to people and programs: frozen, pure, and with whose move it is."""
