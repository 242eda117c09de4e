/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hostile kernel files: whatever the bytes are, loading ends, in time, with a machine that can start or one line of why not.
 *
 * With -fsanitize=fuzzer and -DSUNDOG_LIBFUZZER the fuzzer drives; else main() does, by seeded mutations of small
 * kernels of each kind and of the files named:  fuzz_kernel [-runs=N] [-seed=N] [FILE...]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "board/boot.h"
#include "board/pc.h"

#define MEMORY (128ull << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static noreturn_fn void fail(const char *what, const struct error *e)
{
    fprintf(stderr, "fuzz_kernel: %s: %s\n", what, e->text);
    abort();
}

/* What must hold of any start that is offered. */
static void check_start(const struct boot_cpu_state *s, const struct error *e)
{
    if (s->mode != BOOT_PROTECTED32 && s->mode != BOOT_LONG64)
        fail("no mode to start in", e);
    if (s->mode == BOOT_PROTECTED32 && s->rip > UINT32_MAX)
        fail("a 32-bit entry above 4 GiB", e);
    if (s->mode == BOOT_LONG64 && (!s->cr3 || s->cr3 & PAGE_OFFSET_MASK || s->cr3 >= PC_CONVENTIONAL_END))
        fail("page tables out of place", e);
    if (!s->gdt_base || s->gdt_base + s->gdt_limit >= PC_CONVENTIONAL_END)
        fail("descriptor table out of place", e);
}

static void check_refusal(const struct error *e)
{
    if (e->code >= 0 || !e->text[0] || strchr(e->text, '\n'))
        fail("a refusal without a line", e);
}

/* The last byte chooses the entry asked for; the rest is the file. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (len < 2)
        return 0;
    struct error e = { 0 };
    struct memory_map map;
    struct pmap *pmap = pmap_create(&e);
    if (!pmap || memory_map_make(&map, MEMORY, &e) || memory_map_back(&map, pmap, &e))
        fail("no machine to load into", &e);
    uint8_t *copy = malloc(len - 1);
    if (!copy)
        fail("no memory", &e);
    memcpy(copy, data, len - 1);
    const struct board_config cfg = { .append = "console=ttyS0", .entry = data[len - 1] % 3 };
    struct boot_cpu_state start;
    struct log log = { 0 };
    struct boot b = { .cfg = &cfg,
                      .map = &map,
                      .pmap = pmap,
                      .log = &log,
                      .rsdp = PC_FIRMWARE,
                      .start = &start,
                      .kernel = { .role = "kernel", .path = "fuzzed", .data = copy, .len = len - 1 } };
    if (boot_image(&b, &e))
        check_refusal(&e);
    else
        check_start(&start, &e);
    free(copy);
    pmap_destroy(pmap);
    return 0;
}

#ifndef SUNDOG_LIBFUZZER

#define FILE_MAX (16u << 20)
#define SEEDS_MAX 32

struct seed {
    uint8_t *data;
    size_t len;
};

struct rng {
    uint64_t state;
};

/* xorshift64* */
static uint64_t next(struct rng *r)
{
    r->state ^= r->state >> 12;
    r->state ^= r->state << 25;
    r->state ^= r->state >> 27;
    return r->state * 0x2545f4914f6cdd1dull;
}

/* --- a small kernel of each kind -------------------------------------------------------------------------- */

/* One segment at 1 MiB, a note of the PVH entry, and, if asked, a Multiboot header. */
static size_t make_elf(uint8_t *out, bool is64, bool multiboot)
{
    static const uint8_t ident[] = { 0x7f, 'E', 'L', 'F', 1, 1, 1 };
    const unsigned ph = 0x40, note = 0x100, code = 0x200, code_len = 0x200;
    memset(out, 0, code + code_len);
    memcpy(out, ident, sizeof(ident));
    out[4] = is64 ? 2 : 1;
    put_le16(out + 16, 2);
    put_le16(out + 18, is64 ? 62 : 3);
    put_le32(out + 24, 0x100000);
    put_le32(out + (is64 ? 32 : 28), ph);
    put_le16(out + (is64 ? 54 : 42), is64 ? 56 : 32);
    put_le16(out + (is64 ? 56 : 44), 2);
    uint8_t *p = out + ph;
    const uint32_t load[] = { code, 0x100000, 0x100000, code_len, 0x4000 }, notes[] = { note, 0, 0, 20, 20 };
    for (unsigned i = 0; i < 2; i++) {
        const uint32_t *v = i ? notes : load;
        put_le32(p, i ? 4 : 1);
        for (unsigned f = 0; f < 5; f++)
            put_le32(p + (is64 ? 8 + f * 8 : 4 + f * 4), v[f]);
        p += is64 ? 56 : 32;
    }
    const uint32_t xen[] = { 4, 4, 18 };
    memcpy(out + note, xen, 12);
    memcpy(out + note + 12, "Xen", 4);
    put_le32(out + note + 16, 0x100000);
    if (multiboot) {
        put_le32(out + code, 0x1badb002);
        put_le32(out + code + 4, 3);
        put_le32(out + code + 8, -(0x1badb002u + 3));
    }
    return code + code_len;
}

/* Addresses in the header, no ELF. */
static size_t make_flat_multiboot(uint8_t *out)
{
    const uint32_t header[] = { 0x1badb002, 0x10003, -(0x1badb002u + 0x10003), 0x100000, 0x100000, 0x100400,
                                0x104000,   0x100020 };
    memset(out, 0x90, 0x400);
    memcpy(out, header, sizeof(header));
    return 0x400;
}

/* With an ELF kernel, unpacked, as its payload. */
static size_t make_bzimage(uint8_t *out)
{
    const unsigned setup = 0x400, payload = setup + 0x400;
    memset(out, 0, payload);
    size_t elf = make_elf(out + payload, true, false), code = payload - setup + ((elf + 15) & ~15ull);
    out[0x1f1] = 1;
    put_le32(out + 0x1f4, (uint32_t)code / 16);
    put_le16(out + 0x1fe, 0xaa55);
    out[0x200] = 0xeb;
    out[0x201] = 0x66;
    memcpy(out + 0x202, "HdrS", 4);
    put_le16(out + 0x206, 0x20f);
    out[0x211] = 1;
    put_le32(out + 0x22c, 0x7fffffff);
    put_le32(out + 0x230, 0x200000);
    put_le16(out + 0x234, 1);
    put_le16(out + 0x236, 1);
    put_le32(out + 0x238, 2047);
    put_le32(out + 0x248, 0x400);
    put_le32(out + 0x24c, (uint32_t)elf);
    put_le64(out + 0x258, 0x1000000);
    put_le32(out + 0x260, 0x100000);
    return setup + code;
}

static unsigned make_seeds(struct seed *seeds)
{
    for (unsigned i = 0; i < 6; i++) {
        uint8_t *data = calloc(1, 0x2000);
        if (!data)
            abort();
        size_t len = i < 4    ? make_elf(data, i & 1, i & 2)
                     : i == 4 ? make_flat_multiboot(data)
                              : make_bzimage(data);
        seeds[i] = (struct seed){ data, len };
    }
    return 6;
}

static bool read_seed(const char *path, struct seed *s)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return false;
    s->data = malloc(FILE_MAX);
    s->len = s->data ? fread(s->data, 1, FILE_MAX, f) : 0;
    fclose(f);
    return s->len > 0;
}

/* --- mutations -------------------------------------------------------------------------------------------- */

/* Most fields that matter lie in the first kilobytes, or in the last bytes (a packed kernel's size). */
static size_t pick_place(struct rng *r, size_t len)
{
    size_t range = len;
    switch (next(r) % 4) {
    case 0: range = len < 0x300 ? len : 0x300; break;
    case 1: range = len < 0x2000 ? len : 0x2000; break;
    case 2: return len - 1 - next(r) % (len < 16 ? len : 16);
    default: break;
    }
    return next(r) % range;
}

static void mutate_once(struct rng *r, uint8_t *data, size_t *len)
{
    static const uint64_t telling[] = {
        0,          1,          0x7f,       0x80,       0xff,         0x7fff,
        0xffff,     0x100000,   0x7fffffff, 0x80000000, 0xbffff000,   0xfffff000,
        0xffffffff, 1ull << 32, 1ull << 40, 1ull << 63, ~0ull - 4095, ~0ull
    };
    size_t at = pick_place(r, *len);
    size_t width = 1ull << next(r) % 4;
    uint64_t v = telling[next(r) % array_size(telling)];
    if (width > *len - at)
        width = *len - at;
    switch (next(r) % 6) {
    case 0: data[at] ^= (uint8_t)(1u << next(r) % 8); break;
    case 1: data[at] = (uint8_t)next(r); break;
    case 2:
    case 3: memcpy(data + at, &v, width); break;
    case 4: data[at] = (uint8_t)(data[at] + (next(r) & 1 ? 1 : -1)); break;
    default:
        if (next(r) % 8 == 0)
            *len = 1 + next(r) % *len;
        break;
    }
}

static void run_one(struct rng *r, const struct seed *seeds, unsigned count)
{
    const struct seed *s = &seeds[next(r) % count];
    uint8_t *data = malloc(s->len + 1);
    size_t len = s->len;
    if (!data)
        abort();
    memcpy(data, s->data, len);
    for (unsigned n = (unsigned)(next(r) % 12); n > 0; n--)
        mutate_once(r, data, &len);
    data[len] = (uint8_t)(next(r) % 3);
    LLVMFuzzerTestOneInput(data, len + 1);
    free(data);
}

int main(int argc, char **argv)
{
    struct seed seeds[SEEDS_MAX];
    unsigned count = make_seeds(seeds);
    uint64_t runs = 20000, seed = 1;
    for (int i = 1; i < argc; i++) {
        if (!strncmp(argv[i], "-runs=", 6))
            runs = strtoull(argv[i] + 6, NULL, 0);
        else if (!strncmp(argv[i], "-seed=", 6))
            seed = strtoull(argv[i] + 6, NULL, 0);
        else if (count < SEEDS_MAX && read_seed(argv[i], &seeds[count]))
            count++;
        else
            fprintf(stderr, "fuzz_kernel: %s: not read\n", argv[i]);
    }
    /* Each run has a state of its own, so that one that fails can be had alone: the same seed, from its number. */
    for (uint64_t run = 0; run < runs; run++) {
        struct rng r = { (seed + run) * 0x9e3779b97f4a7c15ull | 1 };
        run_one(&r, seeds, count);
    }
    printf("fuzz_kernel: %llu runs from seed %llu, %u kernels\n", (unsigned long long)runs,
           (unsigned long long)seed, count);
    for (unsigned i = 0; i < count; i++)
        free(seeds[i].data);
    return 0;
}

#endif
