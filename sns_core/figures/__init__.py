"""One file a figure: each reads tidy tables and netCDF files, and writes a PNG and the same page as PDF."""
