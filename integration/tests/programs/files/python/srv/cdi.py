"""Uses what CDI brought: the library, the device node, the variable."""
import ctypes
import errno
import os

answer = ctypes.CDLL("/usr/local/lib/libdemo.so.1").demo_answer()
device = os.open("/dev/fuse", os.O_RDWR)
number = os.fstat(device).st_rdev
try:
    driver = os.read(device, 8192)
except OSError as error:
    driver = errno.errorcode[error.errno]
print(f"library {answer}, device {os.major(number)}:{os.minor(number)} says {driver}, {os.environ['DEMO_DEVICES']}", flush=True)
