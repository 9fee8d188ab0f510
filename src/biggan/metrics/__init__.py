"""Metrics of images, one a file, each a pure function of features: FID and others.

A score depends on the network that made the features as much as on the images: `FeatureExtractor`
says which one it was.
"""
