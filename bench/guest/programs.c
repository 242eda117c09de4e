/* SPDX-License-Identifier: Apache-2.0 */
/* Debian's own programs at work on files in /tmp; they need the root folder that bench/programs.py makes. */
#define _GNU_SOURCE
#include "bench.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define INPUT "/tmp/input"
#define OUTPUT "/tmp/output"
#define DATABASE "/tmp/test.db"
#define OBJECT "/tmp/one.o"

enum { TEXT = 2 << 20, INSERTS = 10000, SPEED_BLOCK = 16384 };

/* Runs one program to its end: INPUT or nothing comes in, OUTPUT takes what it says. */
static void execute(const char *const args[], int reads)
{
    static char *const environment[] = { (char *)"PATH=/usr/bin:/bin", (char *)"LC_ALL=C",
                                         (char *)"HOME=/tmp", NULL };
    int status;
    pid_t pid = fork();
    need(pid >= 0, "fork");
    if (!pid) {
        int in = open(reads ? INPUT : "/dev/null", O_RDONLY),
            out = open(OUTPUT, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        int errors = open("/dev/null", O_WRONLY);
        if (in < 0 || out < 0 || errors < 0)
            _exit(126);
        dup2(in, 0);
        dup2(out, 1);
        dup2(errors, 2);
        execve(args[0], (char *const *)args, environment);
        _exit(127);
    }
    need(waitpid(pid, &status, 0) == pid, "waitpid");
    if (status) {
        printf("bench-error %s ended with status %#x\n", args[0], (unsigned)status);
        fflush(stdout);
        _exit(1);
    }
}

/* FNV-1a of a file's bytes. */
static uint64_t digest(const char *path)
{
    static uint8_t bytes[65536];
    uint64_t sum = 0xcbf29ce484222325ull;
    int fd = open(path, O_RDONLY);
    need(fd >= 0, path);
    for (ssize_t n; (n = read(fd, bytes, sizeof(bytes))) > 0;)
        for (ssize_t i = 0; i < n; i++)
            sum = (sum ^ bytes[i]) * 0x100000001b3ull;
    close(fd);
    return sum;
}

static const char *absent(const char *path) { return access(path, X_OK) ? "not in this root folder" : NULL; }

/* --- gzip --- */

static const char *no_gzip(void) { return absent("/bin/gzip"); }

static void setup_gzip(void)
{
    static const char *const words[] = { "the ",     "sun ",     "dog ",    "stands ", "beside ", "a ",
                                         "bright ",  "double, ", "of ",     "ice ",    "and ",    "light. ",
                                         "machine ", "monitor ", "guest\n", "0x" };
    uint64_t seed = 41;
    FILE *f = fopen(INPUT, "w");
    need(f != NULL, INPUT);
    for (size_t n = 0; n < TEXT;) {
        uint64_t r = rng_next(&seed);
        n += (size_t)fprintf(f, "%s", words[r >> 60]);
        if ((r & 7) == 0)
            n += (size_t)fprintf(f, "%llu", (unsigned long long)(r >> 8 & 0xffff));
    }
    need(fclose(f) == 0, INPUT);
}

static uint64_t run_gzip(uint64_t n)
{
    static const char *const args[] = { "/bin/gzip", "-6nc", NULL };
    while (n--)
        execute(args, 1);
    return digest(OUTPUT);
}

/* --- python3, from start to end of a program that does nothing --- */

static const char *no_python(void) { return absent("/usr/bin/python3"); }

static uint64_t run_python(uint64_t n)
{
    static const char *const args[] = { "/usr/bin/python3", "-c", "print(6 * 7)", NULL };
    while (n--)
        execute(args, 0);
    return digest(OUTPUT);
}

/* --- openssl speed, which measures itself --- */

static double speed_ns;

static const char *no_openssl(void) { return absent("/usr/bin/openssl"); }

static uint64_t speed(const char *algorithm)
{
    const char *const args[] = {
        "/usr/bin/openssl", "speed", "-elapsed", "-seconds", "1", "-bytes", "16384", "-mr", "-evp",
        algorithm,          NULL
    };
    char line[256];
    double rate = 0;
    execute(args, 0);
    /* "+F:25:sha256:1234.5", bytes a second */
    FILE *f = fopen(OUTPUT, "r");
    need(f != NULL, OUTPUT);
    while (fgets(line, sizeof(line), f)) {
        char *colon = strrchr(line, ':');
        if (!strncmp(line, "+F:", 3) && colon)
            rate = strtod(colon + 1, NULL);
    }
    fclose(f);
    if (rate <= 0) {
        printf("bench-error openssl speed %s gave no figure\n", algorithm);
        fflush(stdout);
        _exit(1);
    }
    speed_ns = SPEED_BLOCK * 1e9 / rate;
    return 0;
}

static double own_ns(void) { return speed_ns; }

static uint64_t run_sha256(uint64_t n)
{
    (void)n;
    return speed("sha256");
}

static uint64_t run_aes(uint64_t n)
{
    (void)n;
    return speed("aes-128-cbc");
}

/* --- sqlite3: a table with an index, filled in one transaction --- */

static const char *no_sqlite(void) { return absent("/usr/bin/sqlite3"); }

static void setup_sqlite(void)
{
    uint64_t seed = 43;
    FILE *f = fopen(INPUT, "w");
    need(f != NULL, INPUT);
    fprintf(f,
            "CREATE TABLE t(id INTEGER PRIMARY KEY, k INTEGER, s TEXT);\nCREATE INDEX i ON t(k);\nBEGIN;\n");
    for (int i = 0; i < INSERTS; i++) {
        uint64_t r = rng_next(&seed);
        fprintf(f, "INSERT INTO t VALUES(%d, %llu, 'row %d of %llx');\n", i, (unsigned long long)(r >> 44), i,
                (unsigned long long)r);
    }
    fprintf(f, "COMMIT;\nSELECT count(*), sum(k), max(s) FROM t;\n");
    need(fclose(f) == 0, INPUT);
}

static uint64_t run_sqlite(uint64_t n)
{
    static const char *const args[] = { "/usr/bin/sqlite3", "-batch", DATABASE, NULL };
    while (n--) {
        unlink(DATABASE);
        execute(args, 1);
    }
    return digest(OUTPUT);
}

/* --- gcc: one file of this program, to an object --- */

static const char *no_gcc(void) { return absent("/usr/bin/gcc"); }

static uint64_t run_gcc(uint64_t n)
{
    static const char *const args[] = { "/usr/bin/gcc", "-O2", "-c", "/bench/parse.c", "-o", OBJECT, NULL };
    while (n--)
        execute(args, 0);
    return digest(OBJECT);
}

const struct workload program_workloads[] = {
    { "gzip", "prog", "KiB", TEXT / 1024, .missing = no_gzip, .setup = setup_gzip, .run = run_gzip },
    { "python_start", "prog", "start", 1, .missing = no_python, .run = run_python },
    { "openssl_sha256", "prog", "KiB", 16, .missing = no_openssl, .run = run_sha256, .own_ns = own_ns },
    { "openssl_aes", "prog", "KiB", 16, .missing = no_openssl, .run = run_aes, .own_ns = own_ns },
    { "sqlite_inserts", "prog", "row", INSERTS, .missing = no_sqlite, .setup = setup_sqlite,
      .run = run_sqlite },
    { "gcc_compile", "prog", "file", 1, .missing = no_gcc, .run = run_gcc },
    { 0 },
};
