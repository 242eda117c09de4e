/* SPDX-License-Identifier: Apache-2.0 */
/* The table of engines, and the choice among them. */
#include "engine/engine.h"

#include <errno.h>
#include <string.h>

#include "engine/bt/bt.h"
#include "engine/interp/interp.h"

const struct engine_ops *const engine_table[] = {
    &bt_engine,
    &interp_engine,
    NULL,
};

/* The first that works here. The last one needs nothing of the host, so it is taken without a probe. */
static const struct engine_ops *first_usable(void)
{
    const struct engine_ops *const *engine = engine_table;
    for (; engine[1]; engine++) {
        struct engine_report report = { 0 };
        (*engine)->probe(&report);
        if (report.usable)
            break;
    }
    return *engine;
}

const struct engine_ops *engine_find(const char *name, struct error *e)
{
    if (!strcmp(name, "auto"))
        return first_usable();
    for (const struct engine_ops *const *engine = engine_table; *engine; engine++)
        if (!strcmp((*engine)->name, name))
            return *engine;
    error_set(e, -ENODEV, "no engine '%.40s' in this build; `sundog doctor` lists the engines there are",
              name);
    return NULL;
}
