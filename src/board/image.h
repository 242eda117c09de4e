/* SPDX-License-Identifier: Apache-2.0 */
/* A kernel, initrd or module file read into memory, bounded: whatever the path names. */
#ifndef SUNDOG_BOARD_IMAGE_H
#define SUNDOG_BOARD_IMAGE_H

#include "base/error.h"
#include "base/types.h"

/* Enough to tell what a file is: Multiboot's header lies in the first 8192 bytes. */
#define IMAGE_HEAD 16384u

struct image {
    const char *role; /* "kernel", "initrd", "module": how messages begin */
    const char *path;
    uint8_t *data;
    size_t len;
    void *stream; /* the open file until image_read_rest() */
};

/* Opens the file and reads its first IMAGE_HEAD bytes. -ENODATA when it is empty. On failure nothing is
 * held. */
int image_open(struct image *im, const char *role, const char *path, struct error *e);
/* Reads on to the end and closes. -EFBIG when there is more than `limit` bytes. */
int image_read_rest(struct image *im, uint64_t limit, struct error *e);
/* Both. */
int image_read(struct image *im, const char *role, const char *path, uint64_t limit, struct error *e);
void image_close(struct image *im);

#endif
