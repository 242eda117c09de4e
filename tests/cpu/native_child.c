/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guarded child: one signal a case. The handler takes the result of the last case out of the signal frame, writes the next case
 * into the same frame, and returns into it; the INT3 that fills the code pages brings the processor back.
 */
#define _GNU_SOURCE
#include "native.h"

#include <asm/prctl.h>
#include <cpuid.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <semaphore.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/ucontext.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Waits of 200 ms before a case counts as an endless loop. */
#define STUCK_WAITS 50

struct shared {
    struct test_case cases[BATCH];
    struct test_result results[BATCH];
    struct program_case programs[PROGRAM_BATCH];
    struct program_result program_results[PROGRAM_BATCH];
    sem_t go, done;
    unsigned count;
    bool is_programs; /* the batch at hand */
    volatile unsigned at;
};

struct native {
    struct shared *sh;
    pid_t pid;
};

/* The child's own view; a signal handler needs it. */
static struct shared *sh;
static uint8_t *code_alias, *data_alias;
static unsigned current;
static bool started;

#define FP_PIECE(field) \
    { \
        offsetof(struct fp_image, field), sizeof(((struct fp_image *)0)->field) \
    }
const struct fp_piece fp_pieces[8] = {
    [2] = FP_PIECE(ymmh), [5] = FP_PIECE(k), [6] = FP_PIECE(zmmh), [7] = FP_PIECE(zmm16)
};

/* Where the signal frame, an image as of XSAVE, has each component; 0: the host's kernel does not save it. */
static uint32_t frame_offset[8];
#define XSTATE_BV 512

static void find_components(void)
{
    uint32_t a, b, c, d, low = 0, high;
    __cpuid(1, a, b, c, d);
    if (c >> 27 & 1)
        __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    for (uint32_t i = 2; i < 8; i++) {
        __cpuid_count(0xd, i, a, b, c, d);
        if (low >> i & 1 && fp_pieces[i].size)
            frame_offset[i] = b;
    }
}

static const int greg_of[16] = { REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                 REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15 };

/* Bits of RFLAGS that a case may set. */
#define CASE_FLAGS 0x40cd5ull

static void take_state(const ucontext_t *uc, struct test_result *r)
{
    const greg_t *g = uc->uc_mcontext.gregs;
    const struct _libc_fpstate *fp = uc->uc_mcontext.fpregs;
    r->vector = (uint32_t)g[REG_TRAPNO];
    r->error = (uint32_t)g[REG_ERR];
    r->cr2 = (uint64_t)g[REG_CR2];
    for (unsigned i = 0; i < 16; i++)
        r->out.gpr[i] = (uint64_t)g[greg_of[i]];
    r->out.rip = (uint64_t)g[REG_RIP];
    r->out.rflags = (uint64_t)g[REG_EFL];
    r->out.fp.fcw = fp->cwd;
    r->out.fp.fsw = fp->swd;
    r->out.fp.ftw = (uint8_t)fp->ftw;
    r->out.fp.mxcsr = fp->mxcsr;
    for (unsigned i = 0; i < 8; i++)
        memcpy(r->out.fp.st[i], &fp->_st[i], 10);
    memcpy(r->out.fp.xmm, fp->_xmm, 256);
    for (unsigned i = 2; i < 8; i++) {
        void *to = (char *)&r->out.fp + fp_pieces[i].offset;
        if (frame_offset[i] && *(const uint64_t *)(const void *)((const char *)fp + XSTATE_BV) >> i & 1)
            memcpy(to, (const char *)fp + frame_offset[i], fp_pieces[i].size);
        else if (fp_pieces[i].size)
            memset(to, 0, fp_pieces[i].size);
    }
}

static void put_state(ucontext_t *uc, const struct cpu_image *in, unsigned code_bytes)
{
    greg_t *g = uc->uc_mcontext.gregs;
    struct _libc_fpstate *fp = uc->uc_mcontext.fpregs;
    for (unsigned i = 0; i < 16; i++)
        g[greg_of[i]] = (greg_t)in->gpr[i];
    g[REG_RIP] = (greg_t)in->rip;
    g[REG_EFL] = (greg_t)((in->rflags & CASE_FLAGS) | 0x202);
    g[REG_CSGSFS] = (g[REG_CSGSFS] & ~0xffffll & ~(0xffffll << 48)) | (code_bytes == 8 ? 0x33 : 0x23) |
                    0x2bll << 48;
    fp->cwd = in->fp.fcw;
    fp->swd = in->fp.fsw;
    fp->ftw = in->fp.ftw;
    fp->mxcsr = in->fp.mxcsr;
    for (unsigned i = 0; i < 8; i++)
        memcpy(&fp->_st[i], in->fp.st[i], 10);
    memcpy(fp->_xmm, in->fp.xmm, 256);
    uint64_t in_use = 3;
    for (unsigned i = 2; i < 8; i++)
        if (frame_offset[i]) {
            memcpy((char *)fp + frame_offset[i], (const char *)&in->fp + fp_pieces[i].offset,
                   fp_pieces[i].size);
            in_use |= 1ull << i;
        }
    *(uint64_t *)(void *)((char *)fp + XSTATE_BV) |= in_use;
}

static void take_result(const ucontext_t *uc, const struct test_case *c, struct test_result *r)
{
    take_state(uc, r);
    memcpy(r->memory, data_alias + c->window, WINDOW_SIZE);
    memset(code_alias + (c->in.rip - CODE_BASE), 0xcc, c->code_len);
}

static void put_case(ucontext_t *uc, const struct test_case *c)
{
    memcpy(code_alias + (c->in.rip - CODE_BASE), c->code, c->code_len);
    memcpy(data_alias + c->window, c->memory, WINDOW_SIZE);
    put_state(uc, &c->in, c->code_bytes);
}

uint32_t piece_sum(const uint8_t *p)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < PIECE; i += 8) {
        uint64_t v;
        memcpy(&v, p + i, 8);
        sum = (sum ^ v) * 0x9e3779b97f4a7c15ull;
        sum ^= sum >> 29;
    }
    return (uint32_t)sum;
}

static void take_program(const ucontext_t *uc, struct program_result *r)
{
    take_state(uc, &r->end);
    for (unsigned i = 0; i < PROGRAM_PIECES; i++)
        r->piece[i] = piece_sum(i < CODE_SIZE / PIECE ? code_alias + i * PIECE
                                                      : data_alias + i * PIECE - CODE_SIZE);
    memset(code_alias, 0xcc, CODE_SIZE);
}

static void put_program(ucontext_t *uc, const struct program_case *c)
{
    memcpy(code_alias + (c->in.rip - CODE_BASE), c->code, c->code_len);
    for (unsigned i = 0; i < DATA_SIZE; i += PATTERN_SIZE)
        memcpy(data_alias + i, c->pattern, PATTERN_SIZE);
    put_state(uc, &c->in, c->code_bytes);
}

static void take(const ucontext_t *uc, unsigned i)
{
    if (sh->is_programs)
        take_program(uc, &sh->program_results[i]);
    else
        take_result(uc, &sh->cases[i], &sh->results[i]);
}

static void put(ucontext_t *uc, unsigned i)
{
    if (sh->is_programs)
        put_program(uc, &sh->programs[i]);
    else
        put_case(uc, &sh->cases[i]);
}

/* Linux enters a handler with the AC flag of the code it interrupted: clear it before C runs. */
void signal_entry(int sig, siginfo_t *info, void *context);
__asm__(".text\n.globl signal_entry\nsignal_entry:\n"
        "  pushfq\n"
        "  andq $~0x40000, (%rsp)\n"
        "  popfq\n"
        "  jmp on_signal\n");

__attribute__((used)) static void on_signal(int sig, siginfo_t *info, void *context)
{
    (void)sig;
    (void)info;
    ucontext_t *uc = context;
    if (started) {
        take(uc, current);
        current++;
    }
    started = true;
    while (current >= sh->count) {
        sem_post(&sh->done);
        while (sem_wait(&sh->go) < 0 && errno == EINTR)
            ;
        current = 0;
    }
    sh->at = current;
    put(uc, current);
}

static void map_twice(const char *name, uint64_t at, uint32_t size, int prot, uint8_t **alias)
{
    int fd = memfd_create(name, 0);
    if (fd < 0 || ftruncate(fd, size) < 0)
        _exit(90);
    *alias = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    void *fixed = mmap((void *)at, size, prot, MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0);
    if (*alias == MAP_FAILED || fixed != (void *)at)
        _exit(91);
    close(fd);
}

/* No case is meant to call the kernel; if one does all the same, the child is at an end, and nothing else. */
static void allow_no_calls(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 0, 4),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_rt_sigreturn, 3, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_futex, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog program = { sizeof(filter) / sizeof(filter[0]), filter };
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        _exit(93);
}

static _Noreturn void child_main(void)
{
    static uint8_t stack[1 << 16];
    static const int signals[] = { SIGTRAP, SIGSEGV, SIGBUS, SIGFPE, SIGILL };
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    map_twice("code", CODE_BASE, CODE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC, &code_alias);
    map_twice("data", DATA_BASE, DATA_SIZE, PROT_READ | PROT_WRITE, &data_alias);
    mprotect((void *)(DATA_BASE + DATA_WRITABLE), DATA_SIZE - DATA_WRITABLE, PROT_READ);
    for (uint64_t at = DATA_BASE; at < DATA_BASE + DATA_SIZE; at += 0x1000)
        (void)*(volatile uint8_t *)at; /* present from now on, so that error codes say so */
    memset(code_alias, 0xcc, CODE_SIZE);
    /* 32-bit code needs usable data segments; 64-bit Linux starts with null ones. */
    __asm__ volatile("mov %0, %%ds; mov %0, %%es" : : "r"(0x2b));
    syscall(SYS_arch_prctl, ARCH_SET_GS, DATA_BASE);
    stack_t alt = { .ss_sp = stack, .ss_size = sizeof(stack) };
    sigaltstack(&alt, NULL);
    struct sigaction sa = { .sa_sigaction = signal_entry, .sa_flags = SA_SIGINFO | SA_ONSTACK };
    for (unsigned i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        sigaction(signals[i], &sa, NULL);
    sh->count = 0;
    find_components();
    allow_no_calls();
    __asm__ volatile("int3");
    _exit(92);
}

struct native *native_start(void)
{
    struct native *n = calloc(1, sizeof(*n));
    n->sh = mmap(NULL, sizeof(*n->sh), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    sem_init(&n->sh->go, 1, 0);
    sem_init(&n->sh->done, 1, 0);
    sh = n->sh;
    n->pid = fork();
    if (n->pid == 0)
        child_main();
    unsigned at;
    if (n->pid < 0 || !native_wait(n, &at)) {
        native_stop(n);
        return NULL;
    }
    return n;
}

void native_stop(struct native *n)
{
    if (n->pid > 0) {
        kill(n->pid, SIGKILL);
        waitpid(n->pid, NULL, 0);
    }
    munmap(n->sh, sizeof(*n->sh));
    free(n);
}

struct test_case *native_cases(struct native *n) { return n->sh->cases; }

const struct test_result *native_results(struct native *n) { return n->sh->results; }

struct program_case *native_programs(struct native *n) { return n->sh->programs; }

const struct program_result *native_program_results(struct native *n) { return n->sh->program_results; }

static void submit(struct native *n, unsigned count, bool is_programs)
{
    n->sh->count = count;
    n->sh->is_programs = is_programs;
    sem_post(&n->sh->go);
}

void native_submit(struct native *n, unsigned count) { submit(n, count, false); }

void native_submit_programs(struct native *n, unsigned count) { submit(n, count, true); }

bool native_wait(struct native *n, unsigned *at)
{
    for (unsigned waits = 0;; waits++) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += 200 * 1000000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        if (sem_timedwait(&n->sh->done, &until) == 0)
            return true;
        *at = n->sh->at;
        int status;
        if (errno == ETIMEDOUT && waitpid(n->pid, &status, WNOHANG) == n->pid) {
            fprintf(stderr, "native child died at case %u, status %#x\n", *at, (unsigned)status);
            n->pid = -1;
            return false;
        }
        if (waits == STUCK_WAITS) {
            fprintf(stderr, "native child is stuck in case %u\n", *at);
            return false;
        }
    }
}
