"""Compilers' processes that misbehave, for the tests: the first argument says how."""

import os
import pickle
import signal
import subprocess
import sys
import time


def say(*message):
    os.write(0, pickle.dumps(message))


how, notes = sys.argv[1], sys.argv[2:]
place, function, arguments = pickle.loads(pickle.load(sys.stdin.buffer))
print("a message that no pickle begins with", flush=True)
say("progress", "working")
if how == "answer":
    say("result", [place.name, *arguments])
elif how == "twice":  # the first call of two processes
    if os.path.exists(notes[0]):
        say("result", "second")
    else:
        open(notes[0], "w").close()
        os.abort()
elif how == "crash":
    print("I1201 02:57:07.000807   17252 init.cc:1] nothing to see", file=sys.stderr)
    print("F1201 02:57:07.000807   17252 target.cc:1735] Check failed: z == 1 (8 vs. 1)", file=sys.stderr)
    print("    @     0x7fb3fe89bc54  absl::SendToLog()", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGABRT)
elif how == "exit":
    print("cannot open shared object file", file=sys.stderr)
    print("=== Source Location Trace: ===\nlearning/x/libtpu_init_utils.cc:327", file=sys.stderr, flush=True)
    sys.exit(3)
elif how == "killed":
    print("warned", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
elif how == "half":  # half an answer
    os.write(0, pickle.dumps(("result", "x" * 1000))[:500])
    sys.exit(0)
elif how == "hang":  # with a process of its own, as ptxas is
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    with open(notes[0] + ".new", "w") as file:
        file.write(f"{os.getpid()} {child.pid}")
    os.rename(notes[0] + ".new", notes[0])
    time.sleep(600)
elif how == "grow":
    held = []
    while True:
        held.append(b"x" * (8 << 20))
        time.sleep(0.01)
elif how == "refuse":
    say("error", "batch of 6 is not divisible by 4 devices: use 4 or 8")
elif how == "fail":
    say("failed", "v5e:2x2: the compiler refuses the program: INVALID_ARGUMENT: no")
elif how == "bug":
    say("bug", "Traceback (most recent call last):\nZeroDivisionError: division by zero")
sys.stdin.buffer.read()
