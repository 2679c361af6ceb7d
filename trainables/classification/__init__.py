"""Classifiers of images, texts, both together and tables: data, networks, losses, training, export."""
