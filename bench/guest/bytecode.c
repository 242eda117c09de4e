/* SPDX-License-Identifier: Apache-2.0 */
/* An interpreter's loop: a stack machine runs a sieve of primes from its bytecode. */
#include "bench.h"

enum op { PUSH, LOAD, STORE, ADD, MUL, LESS, JUMP_IF_NOT, JUMP, GET, SET, HALT };

enum { LIMIT = 400, I = 0, J = 1, FOUND = 2 };

/* for (i = 2; i < LIMIT; i++) if (!a[i]) { found++; for (j = i * i; j < LIMIT; j += i) a[j] = 1; } */
static const int16_t code[] = {
    PUSH,          2,     STORE, I,     PUSH, 0,           STORE,       FOUND,
    /*  8 */ LOAD, I,     PUSH,  LIMIT, LESS, JUMP_IF_NOT, 63,
    /* 15 */ LOAD, I,     GET,   PUSH,  1,    LESS,        JUMP_IF_NOT, 54,
    /* 23 */ LOAD, FOUND, PUSH,  1,     ADD,  STORE,       FOUND,
    /* 30 */ LOAD, I,     LOAD,  I,     MUL,  STORE,       J,
    /* 37 */ LOAD, J,     PUSH,  LIMIT, LESS, JUMP_IF_NOT, 54,
    /* 44 */ LOAD, J,     PUSH,  1,     SET,  LOAD,        J,           JUMP,  65,
    /* 53 */ HALT,
    /* 54 */ LOAD, I,     PUSH,  1,     ADD,  STORE,       I,           JUMP,  8,
    /* 63 */ HALT, HALT,
    /* 65 */ LOAD, I,     ADD,   STORE, J,    JUMP,        37,
};

static uint8_t memory[LIMIT];

__attribute__((noinline)) static uint64_t execute(const int16_t *program)
{
    int64_t stack[8], local[3] = { 0 };
    int sp = 0;
    for (size_t pc = 0;;) {
        switch ((enum op)program[pc++]) {
        case PUSH: stack[sp++] = program[pc++]; break;
        case LOAD: stack[sp++] = local[program[pc++]]; break;
        case STORE: local[program[pc++]] = stack[--sp]; break;
        case ADD: sp--, stack[sp - 1] += stack[sp]; break;
        case MUL: sp--, stack[sp - 1] *= stack[sp]; break;
        case LESS: sp--, stack[sp - 1] = stack[sp - 1] < stack[sp]; break;
        case JUMP_IF_NOT: pc = stack[--sp] ? pc + 1 : (size_t)program[pc]; break;
        case JUMP: pc = (size_t)program[pc]; break;
        case GET: stack[sp - 1] = memory[stack[sp - 1]]; break;
        case SET: sp -= 2, memory[stack[sp]] = (uint8_t)stack[sp + 1]; break;
        case HALT: return (uint64_t)local[FOUND];
        }
    }
}

static uint64_t run(uint64_t n)
{
    uint64_t found = 0;
    while (n--) {
        for (size_t i = 0; i < LIMIT; i++)
            memory[i] = 0;
        found = execute(code);
        opaque(memory);
    }
    return found;
}

const struct workload bytecode_workloads[] = { { "bytecode", "int", "sieve", 1, .run = run }, { 0 } };
