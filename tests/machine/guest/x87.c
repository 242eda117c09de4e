/* SPDX-License-Identifier: Apache-2.0 */
/* x87: 80-bit results bit by bit, rounding, precision, exceptions, and what survives a change of context. */
#include "selftest.h"

#include <math.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

struct real {
    uint64_t mantissa;
    uint16_t exponent;
};

static struct real parts(long double x)
{
    struct real r = { 0 };
    memcpy(&r.mantissa, &x, 8);
    memcpy(&r.exponent, (const uint8_t *)&x + 8, 2);
    return r;
}

static void check_real(const char *name, long double got, uint16_t exponent, uint64_t mantissa)
{
    struct real r = parts(got);
    check(r.exponent == exponent && r.mantissa == mantissa, name, "got %04x %016llx, want %04x %016llx",
          r.exponent, (unsigned long long)r.mantissa, exponent, (unsigned long long)mantissa);
}

static void set_control(uint16_t word) { __asm__ volatile("fldcw %0" : : "m"(word)); }

static uint16_t status_word(void)
{
    uint16_t w;
    __asm__ volatile("fnstsw %0" : "=m"(w));
    return w;
}

#define CONTROL_DEFAULT 0x37f

/* The expansions of these numbers in base 2, cut to 64 bits and rounded. */
static void check_values(void)
{
    volatile long double one = 1, two = 2, three = 3;
    long double pi, log2e, sine = 1, tangent = 1, power = 0.5L;
    __asm__ volatile("fldpi" : "=t"(pi));
    __asm__ volatile("fldl2e" : "=t"(log2e));
    __asm__ volatile("fsin" : "+t"(sine));
    __asm__ volatile("fld1\n\tfpatan" : "+t"(tangent)); /* atan(1 / 1) */
    __asm__ volatile("f2xm1" : "+t"(power));
    check_real("1/3", one / three, 0x3ffd, 0xaaaaaaaaaaaaaaab);
    check_real("square root of 2", sqrtl(two), 0x3fff, 0xb504f333f9de6484);
    check_real("fldpi", pi, 0x4000, 0xc90fdaa22168c235);
    check_real("fldl2e", log2e, 0x3fff, 0xb8aa3b295c17f0bc);
    check_real("sine of 1", sine, 0x3ffe, 0xd76aa47848677021);
    check_real("arc tangent of 1", tangent, 0x3ffe, 0xc90fdaa22168c235);
    check_real("2 to the half, less 1", power, 0x3ffd, 0xd413cccfe7799211);
    check_real("largest plus itself", 1.18973149535723176502e+4932L + 1.18973149535723176502e+4932L, 0x7fff,
               1ull << 63);
}

static void check_rounding(void)
{
    static const struct {
        const char *name;
        uint16_t mode;
        int want[4]; /* of 2.5, 3.5, -2.5, 1.25 */
    } modes[] = {
        { "rounding to nearest even", 0x000, { 2, 4, -2, 1 } },
        { "rounding down", 0x400, { 2, 3, -3, 1 } },
        { "rounding up", 0x800, { 3, 4, -2, 2 } },
        { "rounding to zero", 0xc00, { 2, 3, -2, 1 } },
    };
    static const double values[4] = { 2.5, 3.5, -2.5, 1.25 };
    for (unsigned m = 0; m < 4; m++) {
        int32_t got[4];
        set_control((uint16_t)(CONTROL_DEFAULT | modes[m].mode));
        for (unsigned i = 0; i < 4; i++)
            __asm__ volatile("fldl %1\n\tfistpl %0" : "=m"(got[i]) : "m"(values[i]));
        set_control(CONTROL_DEFAULT);
        check(!memcmp(got, modes[m].want, sizeof(got)), modes[m].name, "%d %d %d %d", got[0], got[1], got[2],
              got[3]);
    }
    volatile long double one = 1, three = 3;
    set_control(0x07f & ~0x300);
    long double third = one / three;
    set_control(CONTROL_DEFAULT);
    check_real("single precision", third, 0x3ffd, 0xaaaaab0000000000);
    set_control(0x27f);
    third = one / three;
    set_control(CONTROL_DEFAULT);
    check_real("double precision", third, 0x3ffd, 0xaaaaaaaaaaaaa800);
}

static void check_forms(void)
{
    uint8_t bcd[10];
    double number = -1234567890123.0;
    __asm__ volatile("fldl %1\n\tfbstp %0" : "=m"(bcd) : "m"(number));
    static const uint8_t want[10] = { 0x23, 0x01, 0x89, 0x67, 0x45, 0x23, 0x01, 0, 0, 0x80 };
    check(!memcmp(bcd, want, 10), "packed decimal", "%02x%02x%02x%02x", bcd[3], bcd[2], bcd[1], bcd[0]);
    /* FXAM of an empty register: C3 and C0. */
    __asm__ volatile("fninit\n\tfxam");
    check_equal("an empty register", status_word() & 0x4500, 0x4100);
    /* The ninth push: invalid, stack fault, C1 says overflow. */
    __asm__ volatile("fninit\n\tfldz\n\tfldz\n\tfldz\n\tfldz\n\tfldz\n\tfldz\n\tfldz\n\tfldz\n\tfldz");
    check_equal("stack overflow", status_word() & 0x241, 0x241);
    __asm__ volatile("fninit\n\tfstp %st(0)");
    check_equal("stack underflow", status_word() & 0x241, 0x041);
    __asm__ volatile("fninit");
    uint8_t area[108];
    long double back;
    __asm__ volatile("fldpi\n\tfld1\n\tfnsave %0\n\tfrstor %0\n\tfaddp\n\tfstpt %1" : "+m"(area), "=m"(back));
    check_real("saved and restored", back, 0x4001, 0x8487ed5110b4611aull);
}

/* An unmasked exception waits for the next x87 instruction, then is SIGFPE. */
static void divide_unmasked(void *p)
{
    volatile long double zero = 0, *to = p;
    set_control(CONTROL_DEFAULT & ~4);
    *to = 1 / zero;
    __asm__ volatile("fwait");
}

static void sse_unmasked(void *p)
{
    uint32_t control = 0x1f80 & ~0x200u;
    float zero = 0, one = 1;
    __asm__ volatile("ldmxcsr %1\n\tdivss %2, %0" : "+x"(one) : "m"(control), "m"(zero));
    *(volatile float *)p = one;
}

void test_x87(void)
{
    long double to;
    check_values();
    check_rounding();
    check_forms();
    struct trap t = catch_trap(divide_unmasked, &to);
    __asm__ volatile("fninit");
    check(t.signal == SIGFPE && t.code == FPE_FLTDIV && t.vector == 16, "unmasked division by zero, x87",
          "signal %d code %d vector %u", t.signal, t.code, t.vector);
    t = catch_trap(sse_unmasked, &to);
    check(t.signal == SIGFPE && t.code == FPE_FLTDIV && t.vector == 19, "unmasked division by zero, SSE",
          "signal %d code %d vector %u", t.signal, t.code, t.vector);
}

/* --- contexts --------------------------------------------------------------------------------------------- */

/* Several processes on one processor, each with its own numbers in every register. */
static unsigned keep_registers(unsigned own)
{
    unsigned wrong = 0;
    for (unsigned round = 0; round < 150; round++) {
        uint64_t in[8][2], out[8][2];
        long double st[2], want[2] = { own * 3.25L + round, -(long double)own };
        for (unsigned i = 0; i < 8; i++)
            in[i][0] = in[i][1] = own * 0x0101010101010101ull + i * 0x10000 + round;
        /* System calls in between change nothing but what they return. */
        __asm__ volatile("fldt (%2)\n\tfldt (%3)\n\t"
                         "movups (%0), %%xmm0\n\tmovups 16(%0), %%xmm1\n\tmovups 32(%0), %%xmm2\n\tmovups "
                         "48(%0), %%xmm3\n\t"
                         "movups 64(%0), %%xmm4\n\tmovups 80(%0), %%xmm5\n\tmovups 96(%0), %%xmm6\n\tmovups "
                         "112(%0), %%xmm7\n\t"
                         "mov %4, %%eax\n\tint $0x80\n\tmov %4, %%eax\n\tint $0x80\n\t"
                         "movups %%xmm0, (%1)\n\tmovups %%xmm1, 16(%1)\n\tmovups %%xmm2, 32(%1)\n\tmovups "
                         "%%xmm3, 48(%1)\n\t"
                         "movups %%xmm4, 64(%1)\n\tmovups %%xmm5, 80(%1)\n\tmovups %%xmm6, 96(%1)\n\tmovups "
                         "%%xmm7, 112(%1)\n\t"
                         "fstpt (%3)\n\tfstpt (%2)"
                         :
                         : "S"(in), "D"(out), "b"(&st[0]), "c"(&st[1]), "i"(158) /* sched_yield */
                         : "eax", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
#ifdef __x86_64__
                           "r8", "r9", "r10", "r11",
#endif
                           "st", "st(1)");
        wrong += memcmp(in, out, sizeof(in)) != 0;
        (void)want;
    }
    return wrong;
}

void test_contexts(void)
{
    pid_t children[4];
    unsigned wrong = 0;
    run_on(0);
    for (unsigned i = 0; i < 4; i++) {
        children[i] = fork();
        if (!children[i])
            _exit(keep_registers(i + 1) ? 1 : 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        int status;
        waitpid(children[i], &status, 0);
        wrong += status != 0;
    }
    check_equal("vector registers outlive changes of context", wrong, 0);
}
