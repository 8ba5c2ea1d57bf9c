"""The page to explore a run: fields that move, spectra and energies to read, in one HTML file that loads nothing."""
