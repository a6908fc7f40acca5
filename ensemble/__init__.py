"""The science: images, the two networks, training, evaluation, the model bundle, its engines."""
