# What every document here begins with: `attempt` writes down what it met, or None where it was allowed.
import ctypes, errno, os, signal
result = {}
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    arguments = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    if libc.syscall(ctypes.c_long(inputs["calls"][name]), *arguments) == -1:
        raise OSError(ctypes.get_errno(), name)
def attempt(name, action):
    try:
        action()
        result[name] = None
    except OSError as error:
        result[name] = errno.errorcode.get(error.errno, type(error).__name__)
    except BaseException as error:
        result[name] = type(error).__name__
