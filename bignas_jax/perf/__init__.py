"""How fast it is: measured here, or estimated by a compiler."""
