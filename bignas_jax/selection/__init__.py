"""Selection of children of a trained run: search, evaluation and extraction."""
