/* SPDX-License-Identifier: Apache-2.0 */
/* Reading files that are to be loaded into a guest. */
#include "board/image.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/memory.h"

#define GROWTH (4ull << 20)

/* Reads until `want` bytes are there or the file ends. */
static int fill(struct image *im, size_t want, struct error *e)
{
    uint8_t *data = realloc(im->data, want);
    if (!data)
        return error_set(e, -ENOMEM, "%s %s: no memory on the host for %zu bytes", im->role, im->path, want);
    im->data = data;
    host_memory_will_fill(data, want);
    errno = 0;
    im->len += fread(data + im->len, 1, want - im->len, im->stream);
    if (ferror((FILE *)im->stream)) {
        int why = errno ? errno : EIO;
        return error_set(e, -why, "%s %s: cannot be read: %s", im->role, im->path, strerror(why));
    }
    return 0;
}

void image_close(struct image *im)
{
    if (im->stream)
        fclose(im->stream);
    free(im->data);
    *im = (struct image){ 0 };
}

int image_open(struct image *im, const char *role, const char *path, struct error *e)
{
    *im = (struct image){ .role = role, .path = path };
    im->stream = fopen(path, "rbe");
    if (!im->stream) {
        int why = errno;
        return error_set(e, -why, "%s %s: cannot be opened: %s", role, path, strerror(why));
    }
    /* The reads are large and few: a buffer in between would only copy. */
    setvbuf(im->stream, NULL, _IONBF, 0);
    int r = fill(im, IMAGE_HEAD, e);
    if (!r && im->len == 0)
        r = error_set(e, -ENODATA, "%s %s: the file is empty", role, path);
    if (r)
        image_close(im);
    return r;
}

/* Bytes that will hold the whole file and show its end, or twice what there is when nobody knows. */
static size_t room_wanted(const struct image *im)
{
    FILE *f = im->stream;
    long size = fseek(f, 0, SEEK_END) ? -1 : ftell(f);
    if (size >= 0 && fseek(f, (long)im->len, SEEK_SET) == 0 && (size_t)size >= im->len)
        return (size_t)size + 1;
    return im->len * 2 < GROWTH ? GROWTH : im->len * 2;
}

int image_read_rest(struct image *im, uint64_t limit, struct error *e)
{
    while (!feof((FILE *)im->stream)) {
        if (im->len > limit)
            return error_set(e, -EFBIG,
                             "%s %s: the file is larger than the %llu MiB that can be loaded; "
                             "try another file or more --memory",
                             im->role, im->path, (unsigned long long)(limit >> 20));
        size_t want = room_wanted(im);
        int r = fill(im, want <= limit ? want : limit + 1, e);
        if (r)
            return r;
    }
    fclose(im->stream);
    im->stream = NULL;
    return 0;
}

int image_read(struct image *im, const char *role, const char *path, uint64_t limit, struct error *e)
{
    int r = image_open(im, role, path, e);
    if (r)
        return r;
    r = image_read_rest(im, limit, e);
    if (r)
        image_close(im);
    return r;
}
