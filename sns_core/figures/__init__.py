"""One file per figure. Each reads tables and netCDF files and writes a PNG and the same page as PDF."""
