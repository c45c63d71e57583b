# contained
# Clears, moves, renames, answers, links, hides; as C0, C1, DEL and text that is not UTF-8.
import sys
for text in ("\x1b[2J\x1b[H", "\x1b]0;title\x07", "\x1b]8;;file:///etc\x1b\\link", "\x1b[6n", "\x1bP$q\x1b\\", "\x9b31m", "\x7f\x08\x08", "a\rb", "\u202egnp.exe"):
    print(text)
    print(text, file=sys.stderr)
os.write(1, b"\xff\xfe\x1b[31m\n")
os.write(2, b"\x00\x01\x02\n")
#---
# ends: ProgramFailed
raise ValueError("\x1b[2J\x9b31m")
