"""A wall clock that tests put forward and back for a single process: a library in front of the C library, compiled on
first use. Other clocks (since boot, monotonic) keep their time, as in a real step of the wall clock."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
from pathlib import Path

from tests.faults.run import NotHere

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *shift;

__attribute__((constructor)) static void map_shift(void) {
  const char *path = getenv("CLOCK_SHIFT_FILE");
  int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  if (file < 0) return;
  void *found = mmap(0, sizeof *shift, PROT_READ, MAP_SHARED, file, 0);
  close(file);
  if (found != MAP_FAILED) shift = found;
}

int clock_gettime(clockid_t id, struct timespec *now) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) *(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
  int answer = real(id, now);
  if (!answer && shift && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) now->tv_sec += *shift;
  return answer;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  struct timespec exact;
  int answer = clock_gettime(CLOCK_REALTIME, &exact);
  now->tv_sec = exact.tv_sec;
  now->tv_usec = exact.tv_nsec / 1000;
  return answer;
}

time_t time(time_t *told) {
  struct timespec exact;
  clock_gettime(CLOCK_REALTIME, &exact);
  if (told) *told = exact.tv_sec;
  return exact.tv_sec;
}
"""
PRINT = "import time; print(time.time_ns() // 10**9)"


class ClockShift:
    """The offset of a process's clock, in seconds; 0 at first. The process needs the variables in its environment.
    Raises `NotHere` where the library cannot be compiled, or has no effect."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("gcc") or shutil.which("cc")
        if sys.platform != "linux" or compiler is None:
            raise NotHere("shifting a process' clock needs Linux and a C compiler")
        folder.mkdir()
        folder.chmod(0o755)
        source, library, self._file = folder / "clock.c", folder / "clock.so", folder / "shift"
        source.write_text(SOURCE)
        built = subprocess.run(
            [compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"],
            capture_output=True,
            text=True,
            check=False,
        )
        if built.returncode:
            raise NotHere(f"the clock's library cannot be built: {built.stderr}")
        self.environment = {"LD_PRELOAD": str(library), "CLOCK_SHIFT_FILE": str(self._file)}
        self.set(86_400)
        times = [
            int(subprocess.run([sys.executable, "-c", PRINT], capture_output=True, env=env, check=True).stdout)
            for env in ({}, self.environment)
        ]
        if abs(times[1] - times[0] - 86_400) > 600:
            raise NotHere("the clock's library has no effect on this Python")
        self.set(0)

    def set(self, seconds: int) -> None:
        """Step the clock, while the process runs."""
        mode = "r+b" if self._file.exists() else "w+b"
        with self._file.open(mode) as file:
            file.write(struct.pack("@q", seconds))
        self._file.chmod(0o644)
