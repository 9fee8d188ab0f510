"""Files in which other software keeps tensors, read defensively.

Any damage, or contents that could do harm, raise InputError with one line.
"""
