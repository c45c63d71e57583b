# contained
import mmap
block = mmap.mmap(-1, 128 << 20)
address = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(block)))
assert libc.mlock(address, ctypes.c_size_t(128 << 20)) == -1, "128 MiB were locked"
assert libc.mlockall(3) == -1 or True
huge = libc.mmap
huge.restype = ctypes.c_void_p
huge(None, ctypes.c_size_t(1 << 30), 3, 0x40022, -1, 0)
