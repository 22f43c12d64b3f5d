# The attacker, second half: see guess.c.
exec /disk/own/programs/guess time
