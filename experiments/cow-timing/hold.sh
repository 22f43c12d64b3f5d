# The victim: see guess.c.
exec /disk/own/programs/guess hold 4096
