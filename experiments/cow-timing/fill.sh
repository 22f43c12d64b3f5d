# The attacker, first half: see guess.c.
exec /disk/own/programs/guess fill 4096 512
