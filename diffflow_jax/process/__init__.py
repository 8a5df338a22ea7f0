"""The Gaussian process z = alpha x + sigma eps: levels, rows, predictors."""
