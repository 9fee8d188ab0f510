"""Fine-tuning: training that starts from loaded weights, with other classes.

The architecture is the source's, the number of classes the data's. A run reads its sources once,
before its first step; from then on its checkpoints hold everything.
"""

from biggan.fine_tuning.config import FineTuningConfig
from biggan.fine_tuning.freezing import require_gradients, trainable
from biggan.fine_tuning.shapes import fitted_to_source
from biggan.fine_tuning.transfer import initialize

__all__ = ["FineTuningConfig", "fitted_to_source", "initialize", "require_gradients", "trainable"]
