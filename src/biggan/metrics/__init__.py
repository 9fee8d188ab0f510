"""How good and how varied images are: FID, Inception Score and others, with their provenance.

A score depends on the network whose features it compares as much as on the images. Every metric
here is a pure function of features; `FeatureExtractor` says which network made them.
"""
