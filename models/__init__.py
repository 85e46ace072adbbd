"""Networks: shapes in, logits out; knows nothing of experiments or audio files.

Shapes: `b` clips in a batch, `c` input channels, `t` time steps, `k` classes. Every network maps
`float32 [b, c, t]` to logits `float32 [b, k]`. `models.estimator` makes what is no network:
scikit-learn's classifiers.
"""
