"""Speed of training and children, measured here or estimated by a compiler."""
