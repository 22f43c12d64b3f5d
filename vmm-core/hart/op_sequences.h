/*
 * Sequences of ops that have one handler: what Debian's kernel, its C library
 * and busybox execute most (boot, shell loop, sha256sum, fork and exec), found by
 * merging the most frequent neighbours over and over. A sequence's ops may have
 * any operands.
 *
 * The first op's handler is replaced by the sequence's; the other ops stay as
 * they are, so that an op that traps or takes its slow path is just that op, and
 * execution goes on at the plain op behind it.
 *
 * Users define SEQ2, SEQ3 and SEQ4.
 */
SEQ2(add, add)
SEQ2(mv, mv)
