# Before the Ray node of a pod is told to end: its workers, who tear their trials down through it, go first. All
# containers of a pod are told at once, and a worker shows its metrics at a port until it has given back what it had.
import socket
import sys
import time


def lives(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


while any(lives(int(port)) for port in sys.argv[1:]):
    time.sleep(1)
