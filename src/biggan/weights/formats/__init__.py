"""Weights as other software writes them, one format a file.

A format is a module with ORIGIN and LICENCE, for the network's description; `matches(source)`,
whether tensors are named as in this format; and `convert(source)`, which makes a network's whole
state of them. A file that does not fit raises InputError.
"""

from biggan.weights.formats import brock, huggingface, ivclab, mmgeneration, studiogan, tfhub

FORMATS = (studiogan, mmgeneration, brock, huggingface, ivclab, tfhub)
"""In the order in which they are tried: PyTorch-StudioGAN's names would match `brock`, too."""
