# ends: OutputsUnreadable
os.write(3, b"J" + b"\xff" * 4)
#---
# ends: InterpreterExited
os.write(3, b"J\0\0\0\x02no")
while True: pass
#---
# ends: InterpreterExited
os.close(3)
#---
# ends: InterpreterExited
os._exit(0)
#---
# ends: ProgramKilled
os.kill(os.getpid(), signal.SIGSEGV)
#---
# ends: ProgramKilled
os.kill(os.getpid(), signal.SIGKILL)
#---
# ends: ProgramFailed
import sys
sys.exit(4)
#---
# contained
# Words that fit nowhere, more than anyone keeps.
import struct
for body in (b'{"kind":"entered"}', b'{"kind":"block","index":9,"state":"succeeded"}', b'{"kind":"refused","message":"x"}'):
    frame = b"J" + struct.pack("!I", len(body)) + body
    for _ in range(200): os.write(3, frame * 100)
#---
# ends: TimedOut
# Half a word.
import struct, time
os.write(3, b"O" + struct.pack("!I", 8 << 20) + b"x" * (4 << 20))
time.sleep(600)
