# ends: OutputsUnreadable
result = float("nan")
#---
# ends: OutputsUnreadable
result = [1.0, {"a": float("-inf")}]
#---
# ends: OutputsUnreadable
result = 10 ** 5000
#---
# ends: OutputsUnreadable
result = {}
result["itself"] = result
#---
# ends: OutputsUnreadable
result = []
for _ in range(100_000): result = [result]
#---
# ends: OutputsUnreadable
result = {(1, 2): 3}
#---
# ends: OutputsUnreadable
result = {"text": "\ud800"}
#---
# ends: OutputsUnreadable
result = "x" * (9 << 20)
#---
# ends: OutputsUnreadable
result = object()
#---
# ends: OutputsUnreadable
class Endless(dict):
    def items(self):
        while True: yield "a", self
result = Endless()
#---
# ends: OutOfMemory, TimedOut
class Endless(list):
    def __iter__(self):
        while True: yield "x" * (1 << 20)
result = Endless()
#---
# ends: OutputsUnreadable
class Loud:
    def tolist(self): raise SystemError("\x1b[2J")
result = Loud()
