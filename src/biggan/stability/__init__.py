"""What Section 4 of the paper watches in a run, and what it tries against collapse."""
