"""The elastic network, and the evaluation of its children."""
