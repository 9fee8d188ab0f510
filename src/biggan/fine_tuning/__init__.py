"""Fine-tuning: training that starts from loaded weights, with other classes.

The architecture is the source's, the number of classes the data's. A run reads its sources once,
before its first step; from then on its checkpoints hold everything.
"""

from biggan.fine_tuning.shapes import fitted_to_source

__all__ = ["fitted_to_source"]
