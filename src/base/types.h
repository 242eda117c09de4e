/* SPDX-License-Identifier: Apache-2.0 */
/* Address types that the compiler refuses to mix, and the few words every room uses. */
#ifndef SUNDOG_BASE_TYPES_H
#define SUNDOG_BASE_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A guest-physical address: what the guest's page tables yield, what devices do DMA to. */
typedef struct {
    uint64_t v;
} gpa;

/* A guest-linear ("virtual") address: after segmentation, before paging. */
typedef struct {
    uint64_t v;
} gva;

#define GPA(x) ((gpa){ (uint64_t)(x) })
#define GVA(x) ((gva){ (uint64_t)(x) })

#define PAGE_SHIFT 12
#define PAGE_SIZE 4096u
#define PAGE_OFFSET_MASK 4095u

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define must_use __attribute__((warn_unused_result))
#define noreturn_fn __attribute__((noreturn))
#define printf_like(fmt, args) __attribute__((format(printf, fmt, args)))
#define array_size(a) (sizeof(a) / sizeof((a)[0]))
/* clang-format off */
#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr) - offsetof(type, member)))
/* clang-format on */

/* Upper bound of `--cpus`; sizes the per-vcpu tables. */
#define MAX_VCPUS 8

#endif
