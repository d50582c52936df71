"""Model classes that the Hub can carry: every file here is copied beside the weights by ``save_pretrained``."""
