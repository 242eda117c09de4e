/* SPDX-License-Identifier: Apache-2.0 */
/* Parsing: recursive descent over a text of nested records, names looked up, numbers converted. */
#include "bench.h"

enum { TEXT = 16384, DEPTH = 12 };

static char text[TEXT + 64];
static size_t length;

static void put(const char *s)
{
    while (*s && length < TEXT)
        text[length++] = *s++;
}

static void put_record(uint64_t *seed, int depth)
{
    static const char *const names[] = { "\"port\":", "\"vector\":", "\"address\":", "\"level\":" };
    put("{");
    for (int i = 0; i < 4; i++) {
        uint64_t r = rng_next(seed);
        put(names[r >> 62]);
        if (depth < 3 && (r & 3) == 0) {
            put_record(seed, depth + 1);
        } else {
            char number[8] = { 0 };
            for (int d = 0; d < 5; d++, r >>= 8)
                number[d] = (char)('0' + (r >> 8 & 0xff) % 10);
            put(number);
        }
        put(i < 3 ? ", " : "");
    }
    put("}");
}

static void setup(void)
{
    uint64_t seed = 5;
    length = 0;
    put("[");
    /* Room is left for one whole record and its ends, so that the text is well formed. */
    while (length < TEXT - 2500) {
        put_record(&seed, 0);
        put(",\n ");
    }
    put("0]");
    text[length] = 0;
}

struct reader {
    const char *at;
    uint64_t sum;
    uint32_t errors;
};

static void blank(struct reader *r)
{
    while (*r->at == ' ' || *r->at == '\n')
        r->at++;
}

static uint64_t number(struct reader *r)
{
    uint64_t value = 0;
    for (; *r->at >= '0' && *r->at <= '9'; r->at++)
        value = value * 10 + (uint64_t)(*r->at - '0');
    return value;
}

static unsigned name(struct reader *r)
{
    static const char *const known[] = { "address", "level", "port", "vector" };
    const char *start = ++r->at;
    while (*r->at && *r->at != '"')
        r->at++;
    size_t len = (size_t)(r->at++ - start);
    for (unsigned i = 0; i < 4; i++) {
        size_t k = 0;
        while (k < len && known[i][k] == start[k])
            k++;
        if (k == len && !known[i][k])
            return i;
    }
    r->errors++;
    return 0;
}

__attribute__((noinline)) static void value(struct reader *r, int depth)
{
    blank(r);
    char open = *r->at, close = open == '{' ? '}' : ']';
    if ((open != '{' && open != '[') || depth > DEPTH) {
        r->sum = r->sum * 31 + number(r);
        return;
    }
    for (r->at++;; r->at++) {
        blank(r);
        if (open == '{') {
            r->sum += name(r) + 1;
            r->errors += *r->at++ != ':';
        }
        value(r, depth + 1);
        blank(r);
        if (*r->at != ',')
            break;
    }
    r->errors += *r->at++ != close;
}

static uint64_t run(uint64_t n)
{
    uint64_t sum = 0;
    while (n--) {
        struct reader r = { .at = text };
        value(&r, 0);
        sum = (uint64_t)r.errors << 56 | (r.sum << 8 >> 8);
        opaque(text);
    }
    return sum;
}

const struct workload parse_workloads[] = {
    { "parse", "int", "KiB", (TEXT - 2500) / 1024, .setup = setup, .run = run }, { 0 }
};
