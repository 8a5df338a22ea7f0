"""What is minimised: a density of levels, a weighting, and their loss."""
