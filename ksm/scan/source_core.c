/*
 * ELF cores, as `virsh dump --memory-only`, gcore and the kernel write them: the
 * PT_LOAD segments are the pages (System V ABI, chapter 5; PN_XNUM for more than
 * 65534 segments). Alignment is that of the physical address, or of the virtual
 * one where no physical address is given. What a core says of itself is checked
 * against the file: segments that lie over one another would have it hold any
 * amount of memory.
 */
#include "ksm/scan/source.h"

#include <elf.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_SEGMENTS 1000000u

static int refuse(const struct page_source *source, char *error, size_t error_bytes,
                  const char *why)
{
    snprintf(error, error_bytes, "%s: %s", source->name, why);
    return -1;
}

/* The segment count where e_phnum is too small for it: sh_info of section 0. */
static uint32_t many_segments(const struct page_source *source, const Elf64_Ehdr *header)
{
    Elf64_Shdr section;
    if (pread(source->fd, &section, sizeof section, (off_t)header->e_shoff) !=
        (ssize_t)sizeof section)
        return 0;
    return section.sh_info;
}

static int add_segment(struct page_source *source, const Elf64_Phdr *segment, uint64_t file_bytes,
                       uint64_t *missing_bytes)
{
    uint64_t in_file = segment->p_filesz;
    uint64_t room = segment->p_offset < file_bytes ? file_bytes - segment->p_offset : 0;
    if (in_file > room) {
        *missing_bytes += in_file - room;
        in_file = room;
    }
    /* memsz beyond filesz is memory the core does not hold: not counted */
    struct extent run = {
        .address = segment->p_paddr ? segment->p_paddr : segment->p_vaddr,
        .pages = in_file / SCAN_PAGE_BYTES,
        .offset = segment->p_offset,
    };
    return source_add_extent(source, &run);
}

int source_open_core(struct page_source *source, scan_warn warn, char *error, size_t error_bytes)
{
    Elf64_Ehdr header;
    off_t end = lseek(source->fd, 0, SEEK_END); /* of a block device too */
    if (end < 0 || pread(source->fd, &header, sizeof header, 0) != (ssize_t)sizeof header)
        return refuse(source, error, error_bytes, "truncated ELF header");
    if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_ident[EI_DATA] != ELFDATA2LSB)
        return refuse(source, error, error_bytes, "ELF, but not 64-bit little-endian");
    if (header.e_type != ET_CORE)
        return refuse(source, error, error_bytes, "ELF, but not a core (no memory in it)");
    if (header.e_phentsize != sizeof(Elf64_Phdr))
        return refuse(source, error, error_bytes, "ELF core with program headers of unknown size");

    uint32_t count = header.e_phnum == PN_XNUM ? many_segments(source, &header) : header.e_phnum;
    if (count == 0 || count > MAX_SEGMENTS)
        return refuse(source, error, error_bytes, "ELF core without (or with too many) segments");

    uint64_t missing_bytes = 0, file_bytes = (uint64_t)end;
    for (uint32_t i = 0; i < count; i++) {
        Elf64_Phdr segment;
        uint64_t at = header.e_phoff + (uint64_t)i * sizeof segment;
        if (pread(source->fd, &segment, sizeof segment, (off_t)at) != (ssize_t)sizeof segment)
            return refuse(source, error, error_bytes, "truncated program headers");
        if (segment.p_type == PT_LOAD &&
            add_segment(source, &segment, file_bytes, &missing_bytes) < 0)
            return refuse(source, error, error_bytes, "out of memory");
        if (source->pages > file_bytes / SCAN_PAGE_BYTES)
            return refuse(source, error, error_bytes, "ELF core whose segments overlap");
    }
    if (missing_bytes) {
        char text[512];
        snprintf(text, sizeof text, "%s: truncated core, %llu bytes are missing", source->name,
                 (unsigned long long)missing_bytes);
        warn(text);
    }
    if (source->pages == 0)
        return refuse(source, error, error_bytes, "ELF core without memory");
    return 0;
}
