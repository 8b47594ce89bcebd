"""What Python programs do every day. The argument says what os.splice must answer: "works" or an error's name."""

import asyncio
import concurrent.futures
import errno
import mmap
import multiprocessing
import multiprocessing.shared_memory
import os
import selectors
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time


def square(number):
    return number * number


def threads():
    found = []
    lock = threading.Lock()

    def work(number):
        with lock:
            found.append(number)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(found) == list(range(16))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert list(pool.map(square, range(4))) == [0, 1, 4, 9]


def children():
    assert subprocess.run(["echo", "hello"], capture_output=True, check=True).stdout == b"hello\n"
    assert subprocess.run("exit 3", shell=True).returncode == 3
    child = os.fork()
    if child == 0:
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    sleeper = subprocess.Popen(["sleep", "60"], start_new_session=True)
    os.killpg(sleeper.pid, signal.SIGTERM)
    assert sleeper.wait() == -signal.SIGTERM


def several_processes():
    for method in ("fork", "spawn", "forkserver"):
        context = multiprocessing.get_context(method)
        with context.Pool(2) as pool:
            assert pool.map(square, range(5)) == [0, 1, 4, 9, 16], method
    queue = multiprocessing.Queue()
    queue.put("through a pipe")
    assert queue.get() == "through a pipe"
    memory = multiprocessing.shared_memory.SharedMemory(create=True, size=4096)
    try:
        memory.buf[0] = 42
        again = multiprocessing.shared_memory.SharedMemory(name=memory.name)
        assert again.buf[0] == 42
        again.close()
        memory.close()
    finally:
        memory.unlink()
    with concurrent.futures.ProcessPoolExecutor(2) as pool:
        assert list(pool.map(square, range(3))) == [0, 1, 4]


async def loops():
    async def answer(reader, writer):
        writer.write((await reader.readline()).upper())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"echo\n")
    assert await reader.readline() == b"ECHO\n"
    writer.close()
    server.close()
    child = await asyncio.create_subprocess_exec("echo", "child", stdout=asyncio.subprocess.PIPE)
    assert (await child.communicate())[0] == b"child\n"
    await asyncio.to_thread(time.sleep, 0.01)
    await asyncio.sleep(0.01)


def sockets():
    left, right = socket.socketpair()
    left.send(b"x")
    assert right.recv(1) == b"x"
    for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            socket.socket(family, kind).close()
    assert socket.getaddrinfo("127.0.0.1", 80)
    socket.if_nameindex()
    chooser = selectors.DefaultSelector()
    chooser.register(left, selectors.EVENT_WRITE)
    assert chooser.select(1)


def files():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "file")
        with open(path, "w+b") as file:
            file.write(b"a" * 4096)
            file.flush()
            os.fsync(file.fileno())
            with mmap.mmap(file.fileno(), 4096) as view:
                view[0] = 98
            os.posix_fallocate(file.fileno(), 0, 8192)
        os.chmod(path, 0o600)
        os.utime(path)
        os.rename(path, path + "2")
        os.symlink(path + "2", path)
        os.link(path + "2", path + "3")
        assert sorted(os.listdir(folder)) == ["file", "file2", "file3"]
        os.mkfifo(os.path.join(folder, "pipe"))
        base = sqlite3.connect(os.path.join(folder, "base"))
        base.execute("create table t (n)")
        base.execute("insert into t values (1)")
        base.commit()
        assert base.execute("select n from t").fetchall() == [(1,)]


def signals():
    seen = []
    signal.signal(signal.SIGALRM, lambda *_: seen.append(True))
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    while not seen:
        time.sleep(0.005)
    assert os.sched_getaffinity(0)
    os.getrandom(8)


def splice(expected):
    source, into = os.pipe()
    other_source, other_into = os.pipe()
    os.write(into, b"moved")
    try:
        os.splice(source, other_into, 5)
        answer = "works"
        assert os.read(other_source, 5) == b"moved"
    except OSError as error:
        answer = errno.errorcode[error.errno]
    assert answer == expected, f"os.splice: {answer}, not {expected}"


def main():
    threads()
    children()
    several_processes()
    asyncio.run(loops())
    sockets()
    files()
    signals()
    splice(sys.argv[1])
    print("all done")


if __name__ == "__main__":
    main()
