"""Other packages' names on this one, for programs that were written for them."""
