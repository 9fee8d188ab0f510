"""Weights as other software writes them, one format a file.

A format is a module with ORIGIN and LICENCE, for the network's description; MARKS, beginnings of
names that only its tensors have; and `convert(source)`, which makes a network's whole state of
them. A file that does not fit raises InputError.
"""

from biggan.weights.formats import brock, huggingface, ivclab, mmgeneration, studiogan, tfhub

FORMATS = (studiogan, mmgeneration, brock, huggingface, ivclab, tfhub)
"""In the order in which they are tried: PyTorch-StudioGAN's names have `brock`'s MARKS, too."""
