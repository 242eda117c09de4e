/* SPDX-License-Identifier: Apache-2.0 */
/* The translator's passes by name. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bits.h"
#include "engine/engine.h"

static const char *const names[ENGINE_PASS_COUNT] = {
#define X(id, name, summary) name,
    ENGINE_PASSES(X)
#undef X
};

/* The pass that [name, name+len) names, or ENGINE_PASS_COUNT. */
static unsigned find(const char *name, size_t len)
{
    unsigned n = 0;
    while (n < ENGINE_PASS_COUNT && (strlen(names[n]) != len || memcmp(names[n], name, len)))
        n++;
    return n;
}

int engine_parse_passes(const char *list, uint32_t *passes, struct error *e)
{
    *passes = 0;
    for (const char *name = list;; name++) {
        size_t len = strcspn(name, ",");
        unsigned n = find(name, len);
        if (n == ENGINE_PASS_COUNT) {
            char all[200];
            engine_format_passes(~0u, ", ", all, sizeof(all));
            return error_set(e, -EINVAL, "no pass '%.*s'; there are %s", (int)(len < 40 ? len : 40), name,
                             all);
        }
        *passes |= (uint32_t)BIT(n);
        name += len;
        if (!*name)
            return 0;
    }
}

void engine_format_passes(uint32_t passes, const char *between, char *out, size_t len)
{
    size_t used = 0;
    out[0] = 0;
    for (unsigned n = 0; n < ENGINE_PASS_COUNT && used < len; n++)
        if (passes & BIT(n))
            used += (size_t)snprintf(out + used, len - used, "%s%s", used ? between : "", names[n]);
}
