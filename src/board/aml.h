/* SPDX-License-Identifier: Apache-2.0 */
/* Writing AML, ACPI's byte code, into a bounded buffer (ACPI 6.4 chapter 20). */
#ifndef SUNDOG_BOARD_AML_H
#define SUNDOG_BOARD_AML_H

#include "base/types.h"

/* What does not fit is dropped and remembered in `full`. */
struct aml {
    uint8_t *buf;
    size_t len, cap;
    bool full;
};

void aml_bytes(struct aml *a, const void *bytes, size_t len);
void aml_byte(struct aml *a, uint8_t byte);

/* Terms that enclose others: open, write the contents, close with what open returned. Names are four
 * characters; a leading backslash makes a name absolute. */
size_t aml_open_scope(struct aml *a, const char *name);
size_t aml_open_device(struct aml *a, const char *name);
size_t aml_open_package(struct aml *a, uint8_t elements);
void aml_close(struct aml *a, size_t opened);

/* Name(name, ...): the value is written next. */
void aml_name(struct aml *a, const char *name);
void aml_integer(struct aml *a, uint64_t value);
/* A seven-character EISA id such as "PNP0501", as an integer. */
void aml_eisa_id(struct aml *a, const char *id);
void aml_string(struct aml *a, const char *text);

/* --- resource templates: Name(_CRS, ResourceTemplate () { ... }) (ACPI 6.4, 6.4) ------------------------ */

struct aml_template {
    size_t package; /* the buffer's package */
    size_t length;  /* its length word */
};
struct aml_template aml_open_template(struct aml *a, const char *name);
void aml_close_template(struct aml *a, struct aml_template t);
void aml_io(struct aml *a, uint16_t port, uint8_t len);
void aml_irq(struct aml *a, unsigned irq); /* edge-triggered, active high, not shared */
/* Windows that a bridge passes on. */
void aml_bus_numbers(struct aml *a, uint16_t first, uint16_t last);
void aml_io_window(struct aml *a, uint16_t first, uint16_t last);
void aml_memory_window(struct aml *a, uint32_t first, uint32_t last);

#endif
