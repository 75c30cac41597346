"""From a trained run to children that are chosen and extracted."""
