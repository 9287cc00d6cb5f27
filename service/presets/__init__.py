"""What marketplaces want of a product picture: presets as data, the validator, file names."""
