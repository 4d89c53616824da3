"""Runs valgrind, with the arguments given, on a program that asks the kernel for its auxiliary vector.

By that call of prctl, which valgrind 3.19 does not know, the program is told of a vdso that valgrind has taken away, and
ends when it reads there. Here the call fails, so that it reads /proc/self/auxv, which valgrind answers itself.
"""
import ctypes
import os
import struct
import sys

PRCTL, GET_AUXV, EINVAL = 157, 0x41555856, 22


def step(code, yes, no, value):
    return struct.pack("HBBI", code, yes, no, value)


rule = ctypes.create_string_buffer(
    step(0x20, 0, 0, 0)  # the call's number
    + step(0x15, 0, 3, PRCTL)
    + step(0x20, 0, 0, 16)  # its first argument
    + step(0x15, 0, 1, GET_AUXV)
    + step(0x06, 0, 0, 0x00050000 | EINVAL)
    + step(0x06, 0, 0, 0x7FFF0000)
)
program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", 6, ctypes.addressof(rule)))
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, program, 0, 0):
    sys.exit(f"cannot keep a call from the program: {os.strerror(ctypes.get_errno())}")
os.execvp("valgrind", ["valgrind", *sys.argv[1:]])
