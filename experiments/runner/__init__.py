"""Runs experiments: a scenario in, a folder of results out. Talks to ballastd over its socket only."""
