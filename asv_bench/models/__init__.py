"""Real PyTorch models, as they are and converted: `python -m models`, from asv_bench/."""
