"""The toy tasks of `instnorm train`: data, nets, the training loop, pictures."""
