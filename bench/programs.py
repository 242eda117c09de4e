#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The root folder in which Debian's programs are measured: gzip, python3, openssl, sqlite3 and gcc.

apt resolves and checks the packages on the private state that tools/fetch-guests keeps; nothing is installed.
What is not needed to run these programs is left out, so that the folder is small enough to be an initramfs.
Every machine gets the same files: guests as an initramfs, the host by entering the folder.

    bench/programs.py            fetches, and prints the folder
"""

import fcntl
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

sys.dont_write_bytecode = True
import guests  # noqa: E402

PROGRAMS = ["gzip", "python3-minimal", "openssl", "sqlite3", "gcc", "libc6-dev"]
# Pulled in by these, but not by what is measured.
NOT_NEEDED = re.compile(r"^(lib(asan|lsan|tsan|ubsan|itm|quadmath|gomp|atomic|cc1-|gprofng|krb5|k5crypto|gssapi|"
                        r"tirpc|nsl|com-err|keyutils|crypt|md0|acl|pcre2|bz2)|dpkg$|tar$|rpcsvc|libc-dev-bin|debconf|"
                        r"perl|media-types)")
# Paths that are left out, from the top of the folder.
LEFT_OUT = re.compile(r"^(var|etc/(?!ssl)|usr/share/(?!python)|usr/lib/(gcc/[^/]*/[^/]*/(plugin|lto|install-tools)|"
                      r"python3/|sqlite3)|.*\.(a|pyc)$|usr/lib/[^/]*/gconv|.*/(lto1|lto-wrapper|g\+\+-mapper-server)$|"
                      r"usr/bin/[^/]*(gprof|gp-|objdump|readelf|ld\.gold|dwp|strings|objcopy|strip|nm|gcov|"
                      r"lto-dump|elfedit|addr2line|c\+\+filt|ranlib)|usr/bin/[^/]*ar$|usr/include/(c\+\+|linux|rdma|drm|"
                      r"sound|misc|mtd|xen|video|scsi|rpcsvc))")
SOURCES = ("parse.c", "bench.h")
LAYOUT = "1"


def complete(place):
    stamp = place / ".layout"
    return stamp.is_file() and stamp.read_text() == LAYOUT


def resolve(apt):
    """[(package, version)] that installing the programs on an empty system would bring."""
    done = apt.run("apt-get", "-s", "--no-install-recommends", "install", *PROGRAMS)
    found = re.findall(r"^Inst (\S+) \((\S+) ", done.stdout, re.M)
    return [(name.partition(":")[0], version) for name, version in found if not NOT_NEEDED.match(name)]


def unpack(fetcher, apt, work):
    """Fills work/root; returns the packages as text."""
    wanted = resolve(apt)
    if not wanted:
        apt.update()
        wanted = resolve(apt)
    if not wanted:
        raise guests.Failure(f"apt does not know {', '.join(PROGRAMS)}; check the network and apt's sources")
    debs = work / "debs"
    debs.mkdir(parents=True)
    for name, version in wanted:
        guests.say(f"downloading {name} {version}")
        for attempt in range(3):
            # A package for all architectures has no architecture of ours in its name.
            done = apt.run("apt-get", "download", f"{name}={version}", cwd=debs)
            files = list(debs.glob(f"{name}_*.deb"))
            if files:
                break
            apt.update()
        else:
            raise guests.Failure(f"{name} {version} cannot be downloaded: {done.stdout.strip()[-200:]}")
        fetcher.unpack(files[0], work / "root")
    shutil.rmtree(debs)
    return "".join(f"{name} {version}\n" for name, version in wanted)


def trim(root):
    """Takes out what is not needed, and adds what a package's scripts would have made."""
    for path in sorted(root.rglob("*"), reverse=True):
        relative = str(path.relative_to(root))
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif LEFT_OUT.match(relative):
            path.unlink()
    # Debian releases whose packages hold everything below /usr leave these to an installer.
    for name in ("bin", "lib", "lib64"):
        if not (root / name).exists() and (root / "usr" / name).exists():
            (root / name).symlink_to(f"usr/{name}")
    for name in ("dev", "proc", "sys", "tmp", "etc", "bench"):
        (root / name).mkdir(exist_ok=True)


def add_sources(root):
    """What gcc compiles: a file of the workloads themselves."""
    for name in SOURCES:
        ours, theirs = guests.TOP / "bench/guest" / name, root / "bench" / name
        if not theirs.exists() or theirs.read_bytes() != ours.read_bytes():
            shutil.copyfile(ours, theirs)


def fetch(cache):
    """The folder, made when it is not there."""
    place = cache / "programs"
    if not complete(place):
        fetcher = guests.tool("fetch-guests")
        for program in fetcher.TOOLS:
            if not shutil.which(program):
                raise guests.Failure(f"{program} is missing: the programs come from Debian packages")
        cache.mkdir(parents=True, exist_ok=True)
        with open(cache / ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not complete(place):
                work = cache / ".programs.partial"
                shutil.rmtree(work, ignore_errors=True)
                packages = unpack(fetcher, fetcher.Apt(cache / "apt"), work)
                trim(work / "root")
                (work / "packages").write_text(packages)
                (work / ".layout").write_text(LAYOUT)
                shutil.rmtree(place, ignore_errors=True)
                work.rename(place)
    add_sources(place / "root")
    return place / "root"


def initramfs(root, program, out):
    """Packs the folder with the workloads as /init; kept while neither changes."""
    sources = [root / "bench" / name for name in SOURCES]
    if guests.newer(out, program, root.parent / ".layout", Path(__file__), *sources):
        return out
    tool = guests.tool("mkinitramfs")
    cpio = tool.Cpio()
    for name, (mode, major, minor) in tool.NODES.items():
        cpio.node(name, mode, major, minor)
    for path in root.rglob("*"):
        name = str(path.relative_to(root))
        # Python makes these anew, here as there: they belong to a file's time, which the archive does not keep.
        if "__pycache__" in name:
            continue
        if path.is_symlink():
            cpio.link(name, str(path.readlink()))
        elif path.is_dir():
            cpio.folder(name)
        elif stat.S_ISREG(path.stat().st_mode):
            cpio.file(name, path.read_bytes(), path.stat().st_mode & 0o777)
    cpio.file("init", program.read_bytes())
    part = out.with_suffix(".part")
    part.write_bytes(cpio.image())
    part.replace(out)
    return out


def size(root):
    done = subprocess.run(["du", "-sm", root], text=True, capture_output=True, check=False)
    return done.stdout.split()[0]


if __name__ == "__main__":
    try:
        folder = fetch(guests.cache_folder())
        print(f"{folder} ({size(folder)} MiB)")
    except guests.Failure as e:
        guests.say(str(e))
        sys.exit(1)
