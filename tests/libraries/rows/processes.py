"""Children: subprocess, os, multiprocessing, pools."""

from ..row import Row, Verdict

_MOVED = {"plain": Verdict.MOVED}
_SLEEP_AND_SAY = '["sh", "-c", "sleep 0.3; echo ok"]'

ROWS = (
    Row("subprocess_run", "import subprocess", 'subprocess.run(["sleep", "0.3"], check=True)'),
    Row(
        "subprocess_check_output",
        "import subprocess",
        f'assert subprocess.check_output({_SLEEP_AND_SAY}, text=True) == "ok\\n"',
    ),
    Row(
        "subprocess_popen",
        "import subprocess",
        'assert subprocess.Popen(["sleep", "0.3"]).wait() == 0',
    ),
    Row(
        "subprocess_popen_lines",
        "import subprocess",
        f"""
        with subprocess.Popen({_SLEEP_AND_SAY}, stdout=subprocess.PIPE, text=True) as child:
            assert list(child.stdout) == ["ok\\n"]
        """,
    ),
    Row(
        "subprocess_stdin_big",
        "import subprocess",
        """
        command = ["sh", "-c", "sleep 0.3; wc -c"]
        child = subprocess.run(command, input=b"x" * 1_000_000, stdout=subprocess.PIPE)
        assert int(child.stdout) == 1_000_000
        """,
    ),
    Row("os_system", "import os", 'assert os.system("sleep 0.3") == 0'),
    Row("os_popen", "import os", 'assert os.popen("sleep 0.3; echo ok").read() == "ok\\n"'),
    Row(
        "os_waitpid",
        "import os",
        """
        pid = os.posix_spawn("/bin/sleep", ["sleep", "0.3"], {})
        assert os.waitpid(pid, 0) == (pid, 0)
        """,
    ),
    Row(
        "os_pipe_read",
        "import os\nimport subprocess",
        f"""
        ours, theirs = os.pipe()
        child = subprocess.Popen({_SLEEP_AND_SAY}, stdout=theirs)
        os.close(theirs)
        assert os.read(ours, 9) == b"ok\\n"
        os.close(ours)
        assert child.wait() == 0
        """,
    ),
    Row(
        "pty_spawn",
        "import os\nimport pty",
        f"""
        pid, fd = pty.fork()
        if not pid:
            os.execvp("sh", {_SLEEP_AND_SAY})
        assert os.read(fd, 9).strip() == b"ok"
        os.close(fd)
        os.waitpid(pid, 0)
        """,
    ),
    Row(
        "fifo_open",
        "import os\nimport subprocess",
        """
        name = f"$work/fifo-{ctx.session.id}"
        os.mkfifo(name)
        child = subprocess.Popen(["sh", "-c", f"sleep 0.3; echo ok >{name}"])
        with open(name) as fifo:
            assert fifo.read() == "ok\\n"
        os.unlink(name)
        assert child.wait() == 0
        """,
        **_MOVED,
    ),
    Row(
        "process_pool_executor",
        "import concurrent.futures\nimport time\nPOOL = None",
        """
        global POOL
        if POOL is None:
            POOL = concurrent.futures.ProcessPoolExecutor(8)
        assert POOL.submit(time.sleep, 0.3).result(25) is None
        """,
    ),
    Row(
        "mp_pool",
        "import multiprocessing\nimport time\nPOOL = None",
        """
        global POOL
        if POOL is None:
            POOL = multiprocessing.Pool(8)
        assert POOL.apply(time.sleep, (0.3,)) is None
        """,
    ),
    Row(
        "mp_pool_toplevel",
        "import multiprocessing\nimport time\nPOOL = multiprocessing.Pool(8)",
        "assert POOL.apply(time.sleep, (0.3,)) is None",
        check=True,
    ),
    Row(
        "mp_process",
        "import multiprocessing\nimport time",
        """
        child = multiprocessing.Process(target=time.sleep, args=(0.3,))
        child.start()
        child.join()
        assert child.exitcode == 0
        """,
    ),
    Row(
        "mp_process_spawn",
        'import multiprocessing\nimport time\nSPAWN = multiprocessing.get_context("spawn")',
        """
        child = SPAWN.Process(target=time.sleep, args=(0.3,))
        child.start()
        child.join()
        assert child.exitcode == 0
        """,
    ),
    Row(
        "mp_queue",
        """
        import multiprocessing
        import time

        def put(queue):
            time.sleep(0.3)
            queue.put("ok")
        """,
        """
        queue = multiprocessing.Queue()
        child = multiprocessing.Process(target=put, args=(queue,))
        child.start()
        assert queue.get(timeout=10) == "ok"
        child.join()
        """,
    ),
    Row(
        "thread_pool_executor",
        "import concurrent.futures\nimport time\nPOOL = concurrent.futures.ThreadPoolExecutor(50)",
        "assert POOL.submit(time.sleep, 0.3).result(20) is None",
    ),
    Row(
        "thread_pool_executor_map",
        "import concurrent.futures\nimport time",
        """
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            assert list(pool.map(time.sleep, [0.3, 0.3, 0.3])) == [None, None, None]
        """,
    ),
)
