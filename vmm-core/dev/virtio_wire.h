/*
 * What virtio 1.2 fixes between a driver and a device, as numbers: the registers
 * of the MMIO transport (4.2.2), status and feature bits (2.1, 6), the parts of a
 * split virtqueue (2.7), and the requests of the devices we have (5.2 to 5.5;
 * the balloon's are in balloon-driver/balloon_wire.h).
 *
 * Used by the devices, by their tests and by bare-metal guests, so it stands on
 * <stdint.h> alone. Everything is little-endian.
 */
#ifndef BALLAST_VIRTIO_WIRE_H
#define BALLAST_VIRTIO_WIRE_H

#include <stdint.h>

/* ---- Registers of one device, offsets in its 4 KiB window (table 4.1) ---- */
#define VIRTIO_MMIO_MAGIC               0x000
#define VIRTIO_MMIO_VERSION             0x004
#define VIRTIO_MMIO_DEVICE_ID           0x008
#define VIRTIO_MMIO_VENDOR_ID           0x00c
#define VIRTIO_MMIO_DEVICE_FEATURES     0x010
#define VIRTIO_MMIO_DEVICE_FEATURES_SEL 0x014
#define VIRTIO_MMIO_DRIVER_FEATURES     0x020
#define VIRTIO_MMIO_DRIVER_FEATURES_SEL 0x024
#define VIRTIO_MMIO_QUEUE_SEL           0x030
#define VIRTIO_MMIO_QUEUE_SIZE_MAX      0x034
#define VIRTIO_MMIO_QUEUE_SIZE          0x038
#define VIRTIO_MMIO_QUEUE_READY         0x044
#define VIRTIO_MMIO_QUEUE_NOTIFY        0x050
#define VIRTIO_MMIO_INTERRUPT_STATUS    0x060
#define VIRTIO_MMIO_INTERRUPT_ACK       0x064
#define VIRTIO_MMIO_STATUS              0x070
#define VIRTIO_MMIO_QUEUE_DESC_LOW      0x080
#define VIRTIO_MMIO_QUEUE_DESC_HIGH     0x084
#define VIRTIO_MMIO_QUEUE_DRIVER_LOW    0x090
#define VIRTIO_MMIO_QUEUE_DRIVER_HIGH   0x094
#define VIRTIO_MMIO_QUEUE_DEVICE_LOW    0x0a0
#define VIRTIO_MMIO_QUEUE_DEVICE_HIGH   0x0a4
#define VIRTIO_MMIO_SHM_LEN_LOW         0x0b0
#define VIRTIO_MMIO_SHM_BASE_HIGH       0x0bc
#define VIRTIO_MMIO_CONFIG_GENERATION   0x0fc
#define VIRTIO_MMIO_CONFIG              0x100
#define VIRTIO_MMIO_WINDOW_BYTES        0x1000

#define VIRTIO_MMIO_MAGIC_VALUE   0x74726976u /* "virt" */
#define VIRTIO_MMIO_VERSION_VALUE 2u
#define VIRTIO_VENDOR             0x54534c42u /* "BLST" */

/* Device status (2.1). */
#define VIRTIO_STATUS_ACKNOWLEDGE 1u
#define VIRTIO_STATUS_DRIVER      2u
#define VIRTIO_STATUS_DRIVER_OK   4u
#define VIRTIO_STATUS_FEATURES_OK 8u
#define VIRTIO_STATUS_NEEDS_RESET 64u
#define VIRTIO_STATUS_FAILED      128u

/* Interrupt status (4.2.2). */
#define VIRTIO_INTERRUPT_USED   1u
#define VIRTIO_INTERRUPT_CONFIG 2u

/* Feature bits every device knows (6). */
#define VIRTIO_F_INDIRECT_DESC 28
#define VIRTIO_F_EVENT_IDX     29
#define VIRTIO_F_VERSION_1     32

/* Device types (5). */
#define VIRTIO_ID_BLOCK   2u
#define VIRTIO_ID_CONSOLE 3u
#define VIRTIO_ID_ENTROPY 4u
#define VIRTIO_ID_BALLOON 5u

/* ---- Split virtqueue (2.7) ---- */
#define VIRTQ_DESC_NEXT     1u
#define VIRTQ_DESC_WRITE    2u
#define VIRTQ_DESC_INDIRECT 4u

struct virtq_desc {
    uint64_t pa;
    uint32_t len;
    uint16_t flags;
    uint16_t next;
};

#define VIRTQ_AVAIL_NO_INTERRUPT 1u
#define VIRTQ_USED_NO_NOTIFY     1u

struct virtq_used_elem {
    uint32_t id;
    uint32_t len;
};

/*
 * The three areas of a queue of `size` descriptors:
 *   descriptors  16 * size bytes, 16-aligned
 *   available    u16 flags, u16 idx, u16 ring[size], u16 used_event;    2-aligned
 *   used         u16 flags, u16 idx, elem ring[size], u16 avail_event;  4-aligned
 */
#define VIRTQ_DESC_BYTES(size)  (16u * (size))
#define VIRTQ_AVAIL_BYTES(size) (6u + 2u * (size))
#define VIRTQ_USED_BYTES(size)  (6u + 8u * (size))

/* ---- Block device (5.2) ---- */
#define BLOCK_SECTOR_BYTES 512u

#define BLOCK_F_SEG_MAX      2
#define BLOCK_F_READ_ONLY    5
#define BLOCK_F_BLK_SIZE     6
#define BLOCK_F_FLUSH        9
#define BLOCK_F_TOPOLOGY     10
#define BLOCK_F_DISCARD      13
#define BLOCK_F_WRITE_ZEROES 14

enum block_request_type {
    BLOCK_READ = 0,
    BLOCK_WRITE = 1,
    BLOCK_FLUSH = 4,
    BLOCK_GET_ID = 8,
    BLOCK_DISCARD = 11,
    BLOCK_WRITE_ZEROES = 13,
};
enum block_status { BLOCK_OK = 0, BLOCK_IOERR = 1, BLOCK_UNSUPPORTED = 2 };

#define BLOCK_ID_BYTES 20u

struct block_request { /* the first bytes the driver gives; data and a status byte follow */
    uint32_t type;
    uint32_t reserved;
    uint64_t sector;
};

struct block_range { /* one range of DISCARD or WRITE_ZEROES */
    uint64_t sector;
    uint32_t sectors;
    uint32_t flags;
};
#define BLOCK_RANGE_UNMAP 1u

struct block_config {
    uint64_t capacity_sectors;
    uint32_t size_max;
    uint32_t seg_max;
    struct {
        uint16_t cylinders;
        uint8_t heads, sectors;
    } geometry;
    uint32_t blk_size;
    uint8_t physical_block_exp;
    uint8_t alignment_offset;
    uint16_t min_io_size; /* in logical blocks */
    uint32_t opt_io_size; /* in logical blocks */
    uint8_t writeback;
    uint8_t unused0;
    uint16_t num_queues;
    uint32_t max_discard_sectors;
    uint32_t max_discard_seg;
    uint32_t discard_sector_alignment;
    uint32_t max_write_zeroes_sectors;
    uint32_t max_write_zeroes_seg;
    uint8_t write_zeroes_may_unmap;
    uint8_t unused1[3];
};

/* ---- Console (5.3): one port, no feature ---- */
#define CONSOLE_QUEUE_INPUT  0
#define CONSOLE_QUEUE_OUTPUT 1

struct virtio_console_config {
    uint16_t cols, rows;
    uint32_t max_ports;
    uint32_t emergency_write;
};

#endif
