/* SPDX-License-Identifier: Apache-2.0 */
/* Whether two processors came to the same end, and how they differ. */
#ifndef SUNDOG_TESTS_CPU_AGREE_H
#define SUNDOG_TESTS_CPU_AGREE_H

#include "native.h"

/* What differs first, as a word for people; NULL: nothing does. `masked`: status flags that are not compared.
 * Memory is the caller's affair. */
const char *ends_differ(const struct test_result *host, const struct test_result *ours, uint32_t masked);

/* Both ends on stderr, and the registers that differ with what they were before. */
void ends_print(const struct cpu_image *in, const struct test_result *host, const struct test_result *ours,
                const char *host_name, const char *our_name);

/* The first byte of memory that differs, if any does. */
void memory_print(const struct test_case *c, const struct test_result *host, const struct test_result *ours);

#endif
