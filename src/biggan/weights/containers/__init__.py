"""Files in which other software keeps tensors, read defensively: a file is a stranger's."""
