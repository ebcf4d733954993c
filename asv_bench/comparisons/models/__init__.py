"""Real PyTorch models, as they are and converted: `python -m comparisons.models`."""
