# ends: OutputLimitExceeded
while True: os.write(1, b"x" * (1 << 20))
#---
# ends: OutputLimitExceeded
while True: os.write(2, b"\n" * (1 << 20))
#---
# contained
for _ in range(64): os.write(1, b"x" * (1 << 20))
