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
    size_t len;    /* bytes of it that are in `data` */
    uint64_t size; /* of the open file, once image_measure() knows */
    void *stream;  /* the open file until image_read_rest() */
};

/* Opens the file and reads its first IMAGE_HEAD bytes. -ENODATA when it is empty. On failure nothing is
 * held. */
int image_open(struct image *im, const char *role, const char *path, struct error *e);
/* Reads on to the end and closes. -EFBIG when there is more than `limit` bytes. */
int image_read_rest(struct image *im, uint64_t limit, struct error *e);
/* Says whether the file can stay open and be read in parts: its size is known then, and at most `limit`.
 * Pipes and such are for image_read_rest(). */
bool image_measure(struct image *im, uint64_t limit);
/* Bytes of the whole file: it was measured or has been read. */
static inline uint64_t image_size(const struct image *im) { return im->stream ? im->size : im->len; }
/* Hands [off, off+len) of a file that was measured or read over, in pieces and in order, until `put` returns
 * what is not 0. -EIO when the file has become shorter, or cannot be read. */
int image_each_part(const struct image *im, uint64_t off, uint64_t len,
                    int (*put)(void *ctx, uint64_t done, const uint8_t *data, size_t n, struct error *e),
                    void *ctx, struct error *e);
/* image_open(), then image_read_rest(). */
int image_read(struct image *im, const char *role, const char *path, uint64_t limit, struct error *e);
void image_close(struct image *im);

#endif
