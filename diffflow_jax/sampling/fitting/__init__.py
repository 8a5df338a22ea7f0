"""How `learned.fit_tableau` fits a tableau to a model."""
