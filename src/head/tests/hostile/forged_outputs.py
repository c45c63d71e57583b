# ends: OutputsUnreadable
# The last word, spoken by user code: past the interpreter's own checks.
import sys, struct
def last_word(body):
    sys.modules["_chimera_execute"].encode = lambda _: body
last_word(b'{"result":1,"result":2}')
#---
# ends: OutputsUnreadable
import sys
sys.modules["_chimera_execute"].encode = lambda _: b'{"result":"\\ud800"}'
#---
# ends: OutputsUnreadable
import sys
sys.modules["_chimera_execute"].encode = lambda _: b'{"result":1e999}'
#---
# ends: OutputsUnreadable
import sys
sys.modules["_chimera_execute"].encode = lambda _: b'{"result":' + b"[" * 4_000_000 + b"]" * 4_000_000 + b"}"
#---
# ends: OutputsUnreadable
import sys
sys.modules["_chimera_execute"].encode = lambda _: b'{"result":"\xff"}'
