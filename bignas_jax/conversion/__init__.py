"""Weights of other libraries: their files read, their networks made ours."""
