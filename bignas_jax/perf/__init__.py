"""Speed of training and of children, measured."""
