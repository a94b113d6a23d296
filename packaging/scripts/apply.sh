# The launcher reads compiled records alone, of its own version. A configuration with mistakes is no reason to fail here:
# records of an older version are refused, with a reference, until it is mended.
cellwall apply || echo "cellwall: mend what is shown, then run: cellwall apply" >&2
