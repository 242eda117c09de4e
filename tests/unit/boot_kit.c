/* SPDX-License-Identifier: Apache-2.0 */
/* What the boot tests share. */
#include "boot_kit.h"

#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"

static void keep_line(void *ctx, enum log_level level, const char *line)
{
    struct boot_kit *k = ctx;
    (void)level;
    snprintf(k->warning, sizeof(k->warning), "%s", line);
}

void kit_open(struct boot_kit *k, uint64_t memory)
{
    *k = (struct boot_kit){ .cfg = { .append = "" } };
    k->log = (struct log){ .level = LOG_DEBUG, .sink = keep_line, .ctx = k };
    k->pmap = pmap_create(&k->e);
    assert_non_null(k->pmap);
    assert_int_equal(memory_map_make(&k->map, memory, &k->e), 0);
    assert_int_equal(memory_map_back(&k->map, k->pmap, &k->e), 0);
}

void kit_close(struct boot_kit *k) { pmap_destroy(k->pmap); }

int kit_boot(struct boot_kit *k, const void *kernel, size_t len)
{
    /* A copy of its own, so that a sanitizer sees each byte read beyond. */
    uint8_t *copy = malloc(len);
    assert_non_null(copy);
    memcpy(copy, kernel, len);
    struct boot b = {
        .cfg = &k->cfg,
        .map = &k->map,
        .pmap = k->pmap,
        .log = &k->log,
        .rsdp = 0xe0000,
        .start = &k->start,
        .kernel = { .role = "kernel", .path = "test.kernel", .data = copy, .len = len },
    };
    k->e = (struct error){ 0 };
    int r = boot_image(&b, &k->e);
    free(copy);
    return r;
}

int kit_boot_file(struct boot_kit *k, const char *path)
{
    k->cfg.kernel = path;
    k->e = (struct error){ 0 };
    return boot_kernel(&k->cfg, &k->map, k->pmap, 0xe0000, &k->log, &k->start, &k->e);
}

void kit_refuses(struct boot_kit *k, const void *kernel, size_t len, const char *words)
{
    int r = kit_boot(k, kernel, len);
    if (r >= 0 || !strstr(k->e.text, words))
        fail_msg("expected a refusal with \"%s\", got %d: %s", words, r, k->e.text);
    assert_null(strchr(k->e.text, '\n'));
}

void kit_read(struct boot_kit *k, uint64_t at, void *to, size_t len)
{
    assert_int_equal(ram_read(k->pmap, GPA(at), to, len), 0);
}

uint32_t kit_u32(struct boot_kit *k, uint64_t at)
{
    uint32_t v;
    kit_read(k, at, &v, 4);
    return v;
}

uint64_t kit_u64(struct boot_kit *k, uint64_t at)
{
    uint64_t v;
    kit_read(k, at, &v, 8);
    return v;
}

void kit_string_is(struct boot_kit *k, uint64_t at, const char *s) { kit_bytes_are(k, at, s, strlen(s) + 1); }

void kit_bytes_are(struct boot_kit *k, uint64_t at, const void *bytes, size_t len)
{
    uint8_t *have = malloc(len);
    assert_non_null(have);
    kit_read(k, at, have, len);
    assert_memory_equal(have, bytes, len);
    free(have);
}

void kit_flat_segments(struct boot_kit *k, bool long_mode)
{
    const struct boot_cpu_state *s = &k->start;
    assert_int_equal(s->code_sel, 0x10);
    assert_int_equal(s->data_sel, 0x18);
    assert_true(s->gdt_limit >= 0x1f);
    /* SDM 3A figure 3-8: base 0, limit 0xfffff pages, P=1, DPL=0; D=1 or L=1; accessed, so that none is written. */
    assert_int_equal(kit_u64(k, s->gdt_base + 0x10),
                     long_mode ? 0x00af9b000000ffffull : 0x00cf9b000000ffffull);
    assert_int_equal(kit_u64(k, s->gdt_base + 0x18), 0x00cf93000000ffffull);
}

char *kit_file(const void *bytes, size_t len)
{
    char *path = strdup("/tmp/sundog-test-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    FILE *f = fdopen(fd, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
    return path;
}

void kit_close_file(char *path)
{
    unlink(path);
    free(path);
}

char *kit_guest(const char *arch)
{
    const char *cache = getenv("SUNDOG_CACHE"), *home = getenv("HOME");
    char *path = NULL;
    int n = cache ? asprintf(&path, "%s/%s/vmlinuz", cache, arch)
                  : asprintf(&path, "%s/.cache/sundog/%s/vmlinuz", home ? home : "", arch);
    if (n < 0)
        return NULL;
    if (access(path, R_OK) == 0)
        return path;
    free(path);
    return NULL;
}

void kit_fill(uint8_t *to, size_t len, uint32_t seed)
{
    uint32_t x = seed * 2654435761u + 1;
    for (size_t i = 0; i < len; i++) {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        to[i] = (uint8_t)(x & 0x0f);
    }
}

/* --- ELF files -------------------------------------------------------------------------------------------- */

enum { PROGRAM_HEADERS_AT = 64, NOTE_AT = 2048, SEGMENTS_AT = 4096 };

static void put_program_header(uint8_t *out, bool is64, unsigned i, Elf64_Phdr p)
{
    if (is64) {
        memcpy(out + PROGRAM_HEADERS_AT + i * sizeof(p), &p, sizeof(p));
        return;
    }
    const Elf32_Phdr p32 = { .p_type = p.p_type,
                             .p_flags = p.p_flags,
                             .p_offset = (uint32_t)p.p_offset,
                             .p_vaddr = (uint32_t)p.p_vaddr,
                             .p_paddr = (uint32_t)p.p_paddr,
                             .p_filesz = (uint32_t)p.p_filesz,
                             .p_memsz = (uint32_t)p.p_memsz };
    memcpy(out + PROGRAM_HEADERS_AT + i * sizeof(p32), &p32, sizeof(p32));
}

static void put_header(uint8_t *out, const struct kit_elf *elf, unsigned count)
{
    const Elf64_Ehdr h = {
        .e_type = ET_EXEC,
        .e_machine = elf->is64 ? EM_X86_64 : EM_386,
        .e_version = 1,
        .e_entry = elf->entry,
        .e_phoff = PROGRAM_HEADERS_AT,
        .e_ehsize = sizeof(h),
        .e_phentsize = sizeof(Elf64_Phdr),
        .e_phnum = (uint16_t)count,
    };
    const Elf32_Ehdr h32 = {
        .e_type = h.e_type,
        .e_machine = h.e_machine,
        .e_version = 1,
        .e_entry = (uint32_t)h.e_entry,
        .e_phoff = PROGRAM_HEADERS_AT,
        .e_ehsize = sizeof(h32),
        .e_phentsize = sizeof(Elf32_Phdr),
        .e_phnum = h.e_phnum,
    };
    if (elf->is64)
        memcpy(out, &h, sizeof(h));
    else
        memcpy(out, &h32, sizeof(h32));
    memcpy(out, ELFMAG, SELFMAG);
    out[EI_CLASS] = elf->is64 ? ELFCLASS64 : ELFCLASS32;
    out[EI_DATA] = ELFDATA2LSB;
    out[EI_VERSION] = EV_CURRENT;
}

/* A foreign note first, then Xen's, as vmlinux has them. */
static size_t put_notes(uint8_t *at, bool is64, uint32_t entry)
{
    const uint32_t gnu[] = { 4, 20, 3 };
    const uint32_t xen[] = { 4, is64 ? 8 : 4, 18 };
    memcpy(at, gnu, 12);
    memcpy(at + 12, "GNU", 4);
    memcpy(at + 36, xen, 12);
    memcpy(at + 48, "Xen", 4);
    put_le64(at + 52, entry);
    return is64 ? 60 : 56;
}

size_t kit_make_elf(uint8_t *out, const struct kit_elf *elf)
{
    memset(out, 0, SEGMENTS_AT);
    put_header(out, elf, elf->segments + elf->pvh);
    size_t at = SEGMENTS_AT;
    for (unsigned i = 0; i < elf->segments; i++) {
        const struct kit_segment *s = &elf->segment[i];
        put_program_header(out, elf->is64, i,
                           (Elf64_Phdr){ .p_type = PT_LOAD,
                                         .p_flags = PF_R | PF_X,
                                         .p_offset = at,
                                         .p_vaddr = s->vaddr,
                                         .p_paddr = s->paddr,
                                         .p_filesz = s->len,
                                         .p_memsz = s->mem_len });
        memcpy(out + at, s->bytes, s->len);
        at += s->len;
    }
    if (elf->pvh) {
        size_t len = put_notes(out + NOTE_AT, elf->is64, elf->pvh_entry);
        put_program_header(
            out, elf->is64, elf->segments,
            (Elf64_Phdr){ .p_type = PT_NOTE, .p_offset = NOTE_AT, .p_filesz = len, .p_memsz = len });
    }
    return at;
}
