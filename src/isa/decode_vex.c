/* SPDX-License-Identifier: Apache-2.0 */
/* See decode_vex.h. */
#include "isa/decode_vex.h"

/* C5: R vvvv L pp; C4: R X B mmmmm, W vvvv L pp; 62: R X B R' 0 mmm, W vvvv 1 pp, z L'L b V' aaa. R, X, B, R', vvvv and V'
 * are stored inverted. */
enum {
    INVERTED_R = 0x80,
    INVERTED_X = 0x40,
    INVERTED_B = 0x20,
    INVERTED_R4 = 0x10,
    EVEX_RESERVED0 = 0x08,
    EVEX_ONE = 0x04
};

static const uint8_t pp_prefix[4] = { PN, P66, PF3, PF2 };

static void set_map(struct vex_prefix *x, unsigned m, unsigned first)
{
    if (m >= 1 && m <= 3)
        x->map = (uint8_t)(first + m - 1);
    else
        x->invalid = true;
}

static void set_wvp(struct insn *in, struct vex_prefix *x, uint8_t b, bool long64)
{
    in->w = b >> 7;
    if (in->w && long64)
        in->rex |= 8;
    x->vvvv = ~b >> 3 & 15;
    in->vvvv = x->vvvv & (long64 ? 15 : 7);
    x->pfx = pp_prefix[b & 3];
}

static void set_rxb(struct insn *in, uint8_t b, bool long64)
{
    if (long64)
        in->rex |= (b & INVERTED_R ? 0 : 4) | (b & INVERTED_X ? 0 : 2) | (b & INVERTED_B ? 0 : 1);
}

static void parse_evex(struct insn *in, struct vex_prefix *x, const uint8_t *p, bool long64)
{
    in->enc = ENCODING_EVEX;
    set_rxb(in, p[1], long64);
    set_map(x, p[1] & 7, MAP_E0F);
    set_wvp(in, x, p[2], long64);
    x->v4 = p[3] & 8 ? 0 : 16;
    x->invalid |= p[1] & EVEX_RESERVED0 || !(p[2] & EVEX_ONE) || (x->v4 && !long64);
    if (long64) {
        x->reg4 = p[1] & INVERTED_R4 ? 0 : 16;
        x->rm4 = p[1] & INVERTED_X ? 0 : 16;
    }
    x->z = p[3] >> 7;
    x->b = p[3] >> 4 & 1;
    in->vvvv |= x->v4;
    in->ll = p[3] >> 5 & 3;
    in->mask = p[3] & 7;
}

unsigned vex_parse(struct insn *in, struct vex_prefix *x, const uint8_t *p, unsigned avail, bool long64)
{
    unsigned len = p[0] == 0xc5 ? 2 : p[0] == 0xc4 ? 3 : 4;
    *x = (struct vex_prefix){ 0 };
    if (avail < len)
        return 0;
    if (len == 4) {
        parse_evex(in, x, p, long64);
        return len;
    }
    in->enc = ENCODING_VEX;
    const uint8_t *last = p + len - 1;
    if (len == 2) {
        set_wvp(in, x, *last & 0x7f, long64);
        set_rxb(in, *last | INVERTED_X | INVERTED_B, long64);
        x->map = MAP_V0F;
    } else {
        set_wvp(in, x, *last, long64);
        set_rxb(in, p[1], long64);
        set_map(x, p[1] & 31, MAP_V0F);
    }
    in->ll = *last >> 2 & 1;
    return len;
}

static bool rounds(const struct insn_row *row, const struct insn *in, const struct vex_prefix *x)
{
    return x->b && in->modrm >= 0xc0 && row->xflags & (XF_ER | XF_SAE);
}

static bool length_matches(const struct insn_row *row, const struct insn *in)
{
    switch ((enum insn_vl)row->vl) {
    case L0: return in->ll == 0;
    case L1: return in->ll == 1;
    case L2: return in->ll == 2;
    case LX: return in->ll <= 2;
    case L12: return in->ll == 1 || in->ll == 2;
    case LIG: return in->ll <= 2;
    }
    return false;
}

bool vex_matches(const struct insn_row *row, const struct insn *in, const struct vex_prefix *x)
{
    if (in->enc == ENCODING_LEGACY)
        return true;
    if (row->w != WX && row->w != in->w)
        return false;
    if (rounds(row, in, x))
        return true; /* L'L is the rounding mode, or ignored: the length is the longest */
    if (x->b && !(row->bsize && in->modrm < 0xc0))
        return false;
    return length_matches(row, in);
}

static unsigned length_of(const struct insn_row *row, const struct insn *in, const struct vex_prefix *x)
{
    if (row->vl == LIG || row->vl == L0)
        return 16;
    return rounds(row, in, x) ? 64 : 16u << in->ll;
}

bool vex_has_features(const struct insn_row *row, const struct insn *in, const struct vex_prefix *x,
                      uint64_t features)
{
    uint64_t need = FEATURE_BIT(row->feature);
    unsigned vl = length_of(row, in, x);
    if (in->enc == ENCODING_VEX && !(row->xflags & XF_GPR))
        need |= FEATURE_BIT(FEAT_AVX);
    if ((row->xflags & XF_I2 && vl == 32) || (row->xflags & XF_YR && in->modrm >= 0xc0))
        need |= FEATURE_BIT(FEAT_AVX2);
    if (in->enc == ENCODING_EVEX)
        need |= FEATURE_BIT(FEAT_AVX512F);
    if (in->enc == ENCODING_EVEX && vl < 64 && (row->vl == LX || row->vl == L12))
        need |= FEATURE_BIT(FEAT_AVX512VL);
    return (features & need) == need;
}

void vex_set_length(struct insn *in, const struct vex_prefix *x)
{
    in->vl = (uint8_t)length_of(in->row, in, x);
    if (x->z)
        in->evex |= IX_Z;
    if (rounds(in->row, in, x))
        in->evex |= in->row->xflags & XF_ER ? IX_ROUND : IX_SAE;
    else if (x->b)
        in->evex |= IX_BROADCAST;
}

static bool names_vvvv(const struct insn_row *row)
{
    for (unsigned i = 0; i < 3; i++)
        if (row->op[i] == Hx || row->op[i] == By || row->op[i] == Kh)
            return true;
    return false;
}

static bool mask_valid(const struct insn *in, const struct vex_prefix *x)
{
    uint16_t xf = in->row->xflags;
    if (in->mask ? !(xf & XF_K) : xf & XF_KN)
        return false;
    return !x->z || (xf & XF_Z && in->mask && in->op[0].kind != OPND_MEM);
}

/* A gather's destination, index and mask are three registers (SDM 2C VGATHERDPD). A scatter has no destination. */
static bool vsib_valid(const struct insn *in)
{
    const struct operand *dst = &in->op[0], *mask = &in->op[2];
    if (dst->kind == OPND_MEM)
        return true;
    if (dst->reg == in->mem.index)
        return false;
    return mask->kind != OPND_XMM || (mask->reg != dst->reg && mask->reg != in->mem.index);
}

bool vex_valid(const struct insn *in, const struct vex_prefix *x)
{
    if (!names_vvvv(in->row) && (x->vvvv || (x->v4 && !in->vsib)))
        return false;
    if (in->vsib && !vsib_valid(in))
        return false;
    return in->enc != ENCODING_EVEX || mask_valid(in, x);
}
