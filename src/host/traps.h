/* SPDX-License-Identifier: Apache-2.0 */
/* Host processor traps that our own code runs into on purpose. */
#ifndef SUNDOG_HOST_TRAPS_H
#define SUNDOG_HOST_TRAPS_H

/* From now on a SIMD floating-point trap (SIGFPE, #XM) at an instruction in [begin, end) goes on at
 * `resume`, with the MXCSR that shows the exception in r11d and every exception masked. Any other SIGFPE
 * goes to the handler that was there before. Once per process; later calls do nothing. */
void host_catch_simd_traps(const void *begin, const void *end, const void *resume);
/* The same for one more range, on the calling thread only; the next call moves it. */
void host_catch_simd_traps_here(const void *begin, const void *end, const void *resume);

#endif
