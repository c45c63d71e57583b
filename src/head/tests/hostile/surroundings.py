# contained
# Nothing of the cluster, of the agent or of another run in what a run is born with.
import gc, sys
told = [name for name in os.environ if "KUBERNETES" in name or "CHIMERA" in name or "TOKEN" in name]
assert not told, told
assert sys.argv == ["<document>"], sys.argv
assert sorted(os.listdir("..")) == ["home", "tmp", "work"] and not os.listdir("../tmp") and not os.listdir("../home")
held = [one for one in gc.get_objects() if type(one) is dict and "keyStatement" in one]
assert not held
