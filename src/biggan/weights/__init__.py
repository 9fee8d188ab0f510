"""Weights: their files and the names under which they are found."""
