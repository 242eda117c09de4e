/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Known answers of the vector instructions, SSE2 to SSE4.2, AES and PCLMULQDQ. The answers follow from the manuals'
 * definitions; where a standard gives a vector (FIPS 197, the CRC-32C catalogue), that is taken.
 */
#include "selftest.h"

#include <stdio.h>
#include <string.h>

typedef uint8_t vec __attribute__((vector_size(16)));

#define OP(name, text) \
    static vec name(vec a, vec b) \
    { \
        __asm__ volatile(text : "+x"(a) : "x"(b) : "cc"); \
        return a; \
    }

OP(paddusb, "paddusb %1, %0")
OP(psubsw, "psubsw %1, %0")
OP(pmaddwd, "pmaddwd %1, %0")
OP(pmuludq, "pmuludq %1, %0")
OP(packuswb, "packuswb %1, %0")
OP(punpcklbw, "punpcklbw %1, %0")
OP(psadbw, "psadbw %1, %0")
OP(pavgb, "pavgb %1, %0")
OP(pslldq3, "pslldq $3, %0")
OP(pshufd_1b, "pshufd $0x1b, %1, %0")
OP(pcmpgtd, "pcmpgtd %1, %0")
OP(addpd, "addpd %1, %0")
OP(divps, "divps %1, %0")
OP(sqrtpd, "sqrtpd %1, %0")
OP(cvttpd2dq, "cvttpd2dq %1, %0")
OP(haddps, "haddps %1, %0")
OP(addsubpd, "addsubpd %1, %0")
OP(pshufb, "pshufb %1, %0")
OP(palignr5, "palignr $5, %1, %0")
OP(pmaddubsw, "pmaddubsw %1, %0")
OP(pmulhrsw, "pmulhrsw %1, %0")
OP(psignw, "psignw %1, %0")
OP(pabsd, "pabsd %1, %0")
OP(phaddd, "phaddd %1, %0")
OP(pminsd, "pminsd %1, %0")
OP(pmulld, "pmulld %1, %0")
OP(packusdw, "packusdw %1, %0")
OP(pmovsxbw, "pmovsxbw %1, %0")
OP(phminposuw, "phminposuw %1, %0")
OP(roundpd_up, "roundpd $2, %1, %0")
OP(pblendw_a5, "pblendw $0xa5, %1, %0")
OP(dpps_f1, "dpps $0xf1, %1, %0")
OP(insertps, "insertps $0x98, %1, %0")
OP(mpsadbw, "mpsadbw $0, %1, %0")
OP(pcmpeqq, "pcmpeqq %1, %0")
OP(pcmpgtq, "pcmpgtq %1, %0")
OP(aesenc, "aesenc %1, %0")
OP(aesdec, "aesdec %1, %0")
OP(aesimc, "aesimc %1, %0")
OP(aeskeygenassist, "aeskeygenassist $1, %1, %0")
OP(pclmulqdq, "pclmulqdq $0, %1, %0")
OP(pclmulhqhqdq, "pclmulqdq $0x11, %1, %0")

/* Numbers are written as they lie in memory: lowest byte first. */
#define BYTES(...) \
    { \
        __VA_ARGS__ \
    }
#define W(x) (uint8_t)((x)&0xff), (uint8_t)((x) >> 8 & 0xff)
#define D(x) W(x), W((uint32_t)(x) >> 16)
#define Q(x) D((uint64_t)(x)&0xffffffff), D((uint64_t)(x) >> 32)
#define COUNTING BYTES(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
#define ONE_PD 0x3ff0000000000000ull

static const struct answer {
    const char *name;
    vec (*run)(vec, vec);
    vec a, b, want;
} answers[] = {
    { "paddusb",
      paddusb,
      { Q(0x00ff80fe10203040ull), Q(1) },
      { Q(0x0101800210203040ull), Q(0xff) },
      { Q(0x01ffffff20406080ull), Q(0xff) } },
    { "psubsw",
      psubsw,
      { W(0x8000), W(0x7fff), W(5), W(0), Q(0) },
      { W(1), W(0xffff), W(7), W(0x8000), Q(0) },
      { W(0x8000), W(0x7fff), W(0xfffe), W(0x7fff), Q(0) } },
    { "pmaddwd",
      pmaddwd,
      { W(0x8000), W(0x8000), W(3), W(4), Q(0) },
      { W(0x8000), W(0x8000), W(5), W(0xffff), Q(0) },
      { D(0x80000000), D(11), Q(0) } },
    { "pmuludq",
      pmuludq,
      { D(0xffffffff), D(7), D(2), D(9) },
      { D(0xffffffff), D(7), D(3), D(9) },
      { Q(0xfffffffe00000001ull), Q(6) } },
    { "packuswb",
      packuswb,
      { W(0x100), W(0xffff), W(0x7f), W(0xff), Q(0) },
      { W(1), W(0x8000), W(0x1ff), W(2), Q(0) },
      { 0xff, 0, 0x7f, 0xff, 0, 0, 0, 0, 1, 0, 0xff, 2, 0, 0, 0, 0 } },
    { "punpcklbw",
      punpcklbw,
      COUNTING,
      { Q(0x1716151413121110ull), Q(0) },
      { 0, 0x10, 1, 0x11, 2, 0x12, 3, 0x13, 4, 0x14, 5, 0x15, 6, 0x16, 7, 0x17 } },
    { "psadbw", psadbw, COUNTING, { Q(0x0706050403020101ull), Q(0) }, { Q(1), Q(92) } },
    { "pavgb",
      pavgb,
      { Q(0xff00010203040506ull), Q(0) },
      { Q(0xff01010304050607ull), Q(0) },
      { Q(0xff01010304050607ull), Q(0) } },
    { "pslldq", pslldq3, COUNTING, { Q(0), Q(0) }, { 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 } },
    { "pshufd", pshufd_1b, { Q(0), Q(0) }, { D(1), D(2), D(3), D(4) }, { D(4), D(3), D(2), D(1) } },
    { "pcmpgtd",
      pcmpgtd,
      { D(0xffffffff), D(1), D(5), D(0) },
      { D(0), D(0xffffffff), D(5), D(0x80000000) },
      { D(0), D(0xffffffff), D(0), D(0xffffffff) } },
    { "addpd",
      addpd,
      { Q(ONE_PD), Q(0x7ff0000000000000ull) },
      { Q(ONE_PD), Q(ONE_PD) },
      { Q(0x4000000000000000ull), Q(0x7ff0000000000000ull) } },
    { "divps",
      divps,
      { D(0x3f800000), D(0x3f800000), D(0x40400000), D(0xbf800000) },
      { D(0x40400000), D(0), D(0x40000000), D(0x40000000) },
      { D(0x3eaaaaab), D(0x7f800000), D(0x3fc00000), D(0xbf000000) } },
    { "sqrtpd",
      sqrtpd,
      { Q(0), Q(0) },
      { Q(0x4000000000000000ull), Q(0x4022000000000000ull) },
      { Q(0x3ff6a09e667f3bcdull), Q(0x4008000000000000ull) } },
    { "cvttpd2dq",
      cvttpd2dq,
      { Q(1), Q(1) },
      { Q(0xc005eb851eb851ecull), Q(0x41f0000000000000ull) },
      { D(0xfffffffe), D(0x80000000), Q(0) } },
    { "haddps",
      haddps,
      { D(0x3f800000), D(0x40000000), D(0x40400000), D(0x40800000) },
      { D(0), D(0x3f800000), D(0xbf800000), D(0x3f800000) },
      { D(0x40400000), D(0x40e00000), D(0x3f800000), D(0) } },
    { "addsubpd",
      addsubpd,
      { Q(ONE_PD), Q(ONE_PD) },
      { Q(ONE_PD), Q(ONE_PD) },
      { Q(0), Q(0x4000000000000000ull) } },
    { "pshufb",
      pshufb,
      COUNTING,
      { 15, 0x80, 0, 0x8f, 7, 0x17, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 },
      { 15, 0, 0, 0, 7, 7, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 } },
    { "palignr",
      palignr5,
      { Q(0x1716151413121110ull), Q(0x1f1e1d1c1b1a1918ull) },
      COUNTING,
      { 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20 } },
    { "pmaddubsw",
      pmaddubsw,
      { 0xff, 0xff, 2, 3, 0, 0, 0, 0, Q(0) },
      { 0x7f, 0x7f, 0xff, 4, 0, 0, 0, 0, Q(0) },
      { W(0x7fff), W(10), W(0), W(0), Q(0) } },
    { "pmulhrsw",
      pmulhrsw,
      { W(0x8000), W(0x4000), W(0x7fff), W(1), Q(0) },
      { W(0x8000), W(0x4000), W(0x7fff), W(0x4000), Q(0) },
      { W(0x8000), W(0x2000), W(0x7ffe), W(1), Q(0) } },
    { "psignw",
      psignw,
      { W(5), W(5), W(5), W(0x8000), Q(0) },
      { W(0xffff), W(0), W(9), W(0xffff), Q(0) },
      { W(0xfffb), W(0), W(5), W(0x8000), Q(0) } },
    { "pabsd",
      pabsd,
      { Q(0), Q(0) },
      { D(0xffffffff), D(5), D(0x80000000), D(0) },
      { D(1), D(5), D(0x80000000), D(0) } },
    { "phaddd",
      phaddd,
      { D(1), D(2), D(3), D(4) },
      { D(5), D(6), D(0xffffffff), D(1) },
      { D(3), D(7), D(11), D(0) } },
    { "pminsd",
      pminsd,
      { D(0xffffffff), D(1), D(7), D(0) },
      { D(1), D(0x80000000), D(8), D(0) },
      { D(0xffffffff), D(0x80000000), D(7), D(0) } },
    { "pmulld",
      pmulld,
      { D(0x10001), D(0xffffffff), D(3), D(0) },
      { D(0x10001), D(0xffffffff), D(0xfffffffe), D(9) },
      { D(0x20001), D(1), D(0xfffffffa), D(0) } },
    { "packusdw",
      packusdw,
      { D(0x10000), D(0xffffffff), D(5), D(0xffff) },
      { D(1), D(2), D(3), D(0x7fffffff) },
      { W(0xffff), W(0), W(5), W(0xffff), W(1), W(2), W(3), W(0xffff) } },
    { "pmovsxbw",
      pmovsxbw,
      { Q(0), Q(0) },
      { Q(0x80ff017f00000000ull), Q(9) },
      { W(0), W(0), W(0), W(0), W(0x7f), W(1), W(0xffff), W(0xff80) } },
    { "phminposuw",
      phminposuw,
      { Q(0), Q(0) },
      { W(9), W(8), W(3), W(7), W(3), W(0xffff), W(6), W(5) },
      { W(3), W(2), D(0), Q(0) } },
    { "roundpd",
      roundpd_up,
      { Q(0), Q(0) },
      { Q(0x3ff8000000000000ull), Q(0xbff8000000000000ull) },
      { Q(0x4000000000000000ull), Q(0xbff0000000000000ull) } },
    { "pblendw",
      pblendw_a5,
      { W(0), W(1), W(2), W(3), W(4), W(5), W(6), W(7) },
      { W(16), W(17), W(18), W(19), W(20), W(21), W(22), W(23) },
      { W(16), W(1), W(18), W(3), W(4), W(21), W(6), W(23) } },
    { "dpps",
      dpps_f1,
      { D(0x3f800000), D(0x40000000), D(0x40400000), D(0x40800000) },
      { D(0x3f800000), D(0x3f800000), D(0x3f800000), D(0x3f800000) },
      { D(0x41200000), D(0), D(0), D(0) } },
    { "insertps",
      insertps,
      { D(1), D(2), D(3), D(4) },
      { D(5), D(6), D(7), D(8) },
      { D(1), D(7), D(3), D(0) } },
    { "mpsadbw",
      mpsadbw,
      COUNTING,
      { D(0), Q(0), D(0) },
      { W(6), W(10), W(14), W(18), W(22), W(26), W(30), W(34) } },
    { "pcmpeqq", pcmpeqq, { Q(1), Q(2) }, { Q(1), Q(3) }, { Q(~0ull), Q(0) } },
    { "pcmpgtq", pcmpgtq, { Q(0), Q(1ull << 32) }, { Q(~0ull), Q(1ull << 33) }, { Q(~0ull), Q(0) } },
    /* FIPS 197, appendix B: round 1, from its start to the start of round 2. */
    { "aesenc",
      aesenc,
      { 0x19, 0x3d, 0xe3, 0xbe, 0xa0, 0xf4, 0xe2, 0x2b, 0x9a, 0xc6, 0x8d, 0x2a, 0xe9, 0xf8, 0x48, 0x08 },
      { 0xa0, 0xfa, 0xfe, 0x17, 0x88, 0x54, 0x2c, 0xb1, 0x23, 0xa3, 0x39, 0x39, 0x2a, 0x6c, 0x76, 0x05 },
      { 0xa4, 0x9c, 0x7f, 0xf2, 0x68, 0x9f, 0x35, 0x2b, 0x6b, 0x5b, 0xea, 0x43, 0x02, 0x6a, 0x50, 0x49 } },
    /* FIPS 197, appendix C.1, equivalent inverse cipher: round 1, with the key that follows in round 2's start. */
    { "aesdec",
      aesdec,
      { 0x7a, 0xd5, 0xfd, 0xa7, 0x89, 0xef, 0x4e, 0x27, 0x2b, 0xca, 0x10, 0x0b, 0x3d, 0x9f, 0xf5, 0x9f },
      { 0x13, 0xaa, 0x29, 0xbe, 0x9c, 0x8f, 0xaf, 0xf6, 0xf7, 0x70, 0xf5, 0x80, 0x00, 0xf7, 0xbf, 0x03 },
      { 0x54, 0xd9, 0x90, 0xa1, 0x6b, 0xa0, 0x9a, 0xb5, 0x96, 0xbb, 0xf4, 0x0e, 0xa1, 0x11, 0x70, 0x2f } },
    /* InvMixColumns of (db 13 53 45 mixed) is the standard example 8e 4d a1 bc back to db 13 53 45. */
    { "aesimc",
      aesimc,
      { Q(0), Q(0) },
      { 0x8e, 0x4d, 0xa1, 0xbc, 1, 1, 1, 1, 0x9f, 0xdc, 0x58, 0x9d, 0xd5, 0xd5, 0xd7, 0xd6 },
      { 0xdb, 0x13, 0x53, 0x45, 1, 1, 1, 1, 0xf2, 0x0a, 0x22, 0x5c, 0xd4, 0xd4, 0xd4, 0xd5 } },
    /* FIPS 197, appendix A.1: SubWord(RotWord(09cf4f3c)) is 8a84eb01; with the round constant 8b84eb01. */
    { "aeskeygenassist",
      aeskeygenassist,
      { Q(0), Q(0) },
      { D(0), D(0), D(0), 0x09, 0xcf, 0x4f, 0x3c },
      { 0x63, 0x63, 0x63, 0x63, 0x62, 0x63, 0x63, 0x63, 0x01, 0x8a, 0x84, 0xeb, 0x8b, 0x84, 0xeb, 0x01 } },
    /* (x + 1)^2 is x^2 + 1 without carries; 2^63 times 2^63. */
    { "pclmulqdq low", pclmulqdq, { Q(3), Q(9) }, { Q(3), Q(9) }, { Q(5), Q(0) } },
    { "pclmulqdq high",
      pclmulhqhqdq,
      { Q(3), Q(1ull << 63) },
      { Q(3), Q(1ull << 63) },
      { Q(0), Q(1ull << 62) } },
};

static void check_answer(const struct answer *t)
{
    vec a = t->a, b = t->b;
    __asm__ volatile("" : "+x"(a), "+x"(b));
    vec got = t->run(a, b);
    char text[33];
    for (unsigned i = 0; i < 16; i++)
        snprintf(text + 2 * i, 3, "%02x", ((const uint8_t *)&got)[i]);
    check(!memcmp(&got, &t->want, 16), t->name, "got %s", text);
}

/* CRC-32C of "123456789" is e3069283. */
static void check_crc(void)
{
    uint32_t crc = ~0u;
    for (const char *p = "123456789"; *p; p++)
        __asm__("crc32b %1, %0" : "+r"(crc) : "qm"(*p));
    check_equal("crc32b", ~crc, 0xe3069283);
    uint32_t low = 0x34333231, high = 0x38373635;
    crc = ~0u;
    __asm__("crc32l %1, %0\n\tcrc32l %2, %0\n\tcrc32b %3, %0"
            : "+r"(crc)
            : "r"(low), "r"(high), "qm"((uint8_t)'9'));
    check_equal("crc32l", ~crc, 0xe3069283);
}

/* The string instructions: where "needle" begins; which bytes are in ranges. */
static void check_strings(void)
{
    static const _Alignas(16) char needle[16] = "lo", text[16] = "hello, world";
    static const _Alignas(16) char ranges[16] = "azAZ", mixed[16] = "..xY1z";
    uint32_t at, mask;
    bool carry;
    __asm__("movdqa %2, %%xmm1\n\tpcmpistri $0x0c, %3, %%xmm1\n\tsetc %1"
            : "=c"(at), "=q"(carry)
            : "m"(needle), "m"(text)
            : "xmm1", "cc");
    check(at == 3 && carry, "pcmpistri", "index %u carry %d", at, carry);
    __asm__("movdqa %1, %%xmm1\n\tpcmpistrm $0x04, %2, %%xmm1\n\tmovd %%xmm0, %0"
            : "=r"(mask)
            : "m"(ranges), "m"(mixed)
            : "xmm0", "xmm1", "cc");
    check_equal("pcmpistrm", mask, 0x2c);
    __asm__("movdqa %1, %%xmm1\n\tpcmpestri $0x08, %2, %%xmm1"
            : "=c"(at)
            : "m"(needle), "m"(text), "a"(2), "d"(2)
            : "xmm1", "cc");
    check_equal("pcmpestri", at, 2); /* neither byte is equal; beyond both ends all are */
}

static void check_scalars(void)
{
    uint32_t count, mask;
    __asm__("popcnt %1, %0" : "=r"(count) : "r"(0xf0f01001u) : "cc");
    check_equal("popcnt", count, 10);
    vec signs = { 0x80, 0, 0xff, 0x7f, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0xf0 };
    __asm__("pmovmskb %1, %0" : "=r"(mask) : "x"(signs));
    check_equal("pmovmskb", mask, 0x8085);
    /* MXCSR: flags are sticky, the rounding mode counts. */
    float one = 1, three = 3, third = 1;
    uint32_t csr = 0x1f80 | 0x6000, after;
    __asm__ volatile("ldmxcsr %1\n\tdivss %3, %0\n\tstmxcsr %2"
                     : "+x"(third), "+m"(csr), "=m"(after)
                     : "x"(three));
    uint32_t bits;
    memcpy(&bits, &third, 4);
    check_equal("divss rounded to zero", bits, 0x3eaaaaaa);
    check_equal("MXCSR tells inexact", after, 0x7fa0);
    csr = 0x1f80;
    __asm__ volatile("ldmxcsr %0\n\tucomiss %1, %2" : : "m"(csr), "x"(one), "x"(three) : "cc");
}

void test_simd(void)
{
    for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++)
        check_answer(&answers[i]);
    check_crc();
    check_strings();
    check_scalars();
}
