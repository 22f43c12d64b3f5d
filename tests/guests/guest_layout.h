/* What the guests and the program that runs them agree on. */
#ifndef BALLAST_GUEST_LAYOUT_H
#define BALLAST_GUEST_LAYOUT_H

#define GUEST_RAM_PA    0x80000000ul
#define GUEST_RAM_BYTES (64ul << 20)
#define GUEST_RAM_END   (GUEST_RAM_PA + GUEST_RAM_BYTES)

/* Memory a guest may use as it likes: from the end of its image to here; the loader's device tree
 * is in the last 2 MiB. */
#define GUEST_FREE_END (GUEST_RAM_END - (4ul << 20))

/* The disk: each byte of sector n is n modulo 256. */
#define GUEST_DISK_SECTORS 16384u

/* What the balloon guest must have given to the host at some time before it ends. */
#define BALLOON_GUEST_PAGES 6000u

#endif
