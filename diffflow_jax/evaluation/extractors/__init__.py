"""From images to features: networks, their weight files, what they are fed."""
