"""Audio: clips, datasets and the arrays made from them; knows nothing of experiments.

Shapes: `n` clips, `c` channels (windows of a waveform, or bands of a spectrogram), `t` time
steps (samples within a window, or frames). A clip's features are `float32 [c, t]`, the features
of a dataset `float32 [n, c, t]`, row `i` belonging to `Dataset.clips[i]`.
"""
