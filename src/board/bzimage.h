/* SPDX-License-Identifier: Apache-2.0 */
/* Linux's bzImage: the setup header (Documentation/arch/x86/boot.rst) and the kernel packed inside. */
#ifndef SUNDOG_BOARD_BZIMAGE_H
#define SUNDOG_BOARD_BZIMAGE_H

#include "base/error.h"
#include "base/types.h"
#include "board/image.h"

/* What the setup header says, with the defaults of the protocol versions that lack a field. */
struct bzimage {
    uint16_t version;
    uint32_t setup_len; /* real-mode part: the protected-mode part begins here */
    uint32_t code_len;  /* protected-mode part */
    bool entry64;       /* has a 64-bit entry 0x200 bytes into it */
    bool relocatable;
    uint32_t alignment;            /* of where a relocatable kernel may be loaded */
    uint64_t preferred;            /* where it wants to be loaded */
    uint64_t memory_len;           /* what it needs there until it runs */
    uint32_t initrd_max;           /* highest address an initrd may have */
    uint32_t cmdline_max;          /* without the terminator */
    uint32_t payload, payload_len; /* in the file; length 0: not told */
};

bool bzimage_is(const uint8_t *head, size_t len);
/* Checks the header against the file. -ENOEXEC with a message that names the file. */
int bzimage_parse(const struct image *im, struct bzimage *bz, struct error *e);
/* Unpacks the ELF kernel inside; *elf is given to unpack_free(). */
int bzimage_unpack(const struct image *im, uint64_t limit, uint8_t **elf, size_t *len, struct error *e);

#endif
