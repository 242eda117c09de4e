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

bool image_measure(struct image *im, uint64_t limit)
{
    FILE *f = im->stream;
    long size = fseek(f, 0, SEEK_END) ? -1 : ftell(f);
    if (size < 0 || fseek(f, (long)im->len, SEEK_SET) || (uint64_t)size < im->len || (uint64_t)size > limit)
        return false;
    im->size = (uint64_t)size;
    return true;
}

/* Bytes that will hold the whole file and show its end, or twice what there is when nobody knows. */
static size_t room_wanted(struct image *im, uint64_t limit)
{
    if (image_measure(im, limit))
        return im->size + 1;
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
        size_t want = room_wanted(im, limit);
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

/* Small enough to stay in the processor's cache between the file and the guest. */
#define PART 262144u

static int read_part(const struct image *im, uint64_t off, uint8_t *part, size_t n, struct error *e)
{
    FILE *f = im->stream;
    errno = 0;
    if (fseek(f, (long)off, SEEK_SET) == 0 && fread(part, 1, n, f) == n)
        return 0;
    return error_set(e, -EIO, "%s %s: cannot be read: %s", im->role, im->path,
                     ferror(f) && errno ? strerror(errno) : "it has become shorter");
}

int image_each_part(const struct image *im, uint64_t off, uint64_t len,
                    int (*put)(void *ctx, uint64_t done, const uint8_t *data, size_t n, struct error *e),
                    void *ctx, struct error *e)
{
    if (!im->stream)
        return put(ctx, 0, im->data + off, len, e);
    uint8_t *part = malloc(PART);
    if (!part)
        return error_set(e, -ENOMEM, "%s %s: no memory on the host to read it", im->role, im->path);
    int r = 0;
    for (uint64_t done = 0; done < len && !r;) {
        size_t n = len - done < PART ? (size_t)(len - done) : PART;
        r = read_part(im, off + done, part, n, e);
        if (!r)
            r = put(ctx, done, part, n, e);
        done += n;
    }
    free(part);
    return r;
}
