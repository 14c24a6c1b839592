"""What ``check`` says of what a file does when it is imported."""

from __future__ import annotations

import subprocess

from tests.support.wait import wait_until

from .checking import check_all

HANDLER = "\n@app.filter.ehlo(thread=True)\ndef look(ctx, identity): pass\n"
COPIES = (
    "at the top of the file starts processes while the filter is imported: each has a copy of what "
    "was there by then; make it inside a handler, when it is first used"
)
GUARDED = (
    'is not made here: the file is imported, and __name__ is not "__main__"; make it inside a '
    "handler, when it is first used"
)
CASES = {
    "a pool": (
        "import multiprocessing\nP = multiprocessing.get_context('fork').Pool(1)",
        [f"guard.py:5: warning: multiprocessing.get_context {COPIES}"],
    ),
    "an executor": (
        "from concurrent.futures import ProcessPoolExecutor as Executor\nE = Executor(1)",
        [f"guard.py:5: warning: concurrent.futures.ProcessPoolExecutor {COPIES}"],
    ),
    "in a function": (
        "import multiprocessing\ndef make():\n    return multiprocessing.Process()\nP = make()",
        [f"guard.py:6: warning: multiprocessing.Process {COPIES}"],
    ),
    "guarded": (
        "import multiprocessing\nif __name__ == '__main__':\n    P = multiprocessing.Pool(1)",
        [f"guard.py:6: warning: multiprocessing.Pool {GUARDED}"],
    ),
    "in another module": (
        f"import pools{HANDLER}\n== pools.py\nfrom multiprocessing import Process\nP = Process()",
        [f"pools.py:2: warning: multiprocessing.Process {COPIES}"],
    ),
    "in a function that nothing calls yet": (
        "import multiprocessing\ndef make():\n    return multiprocessing.Pool(1)",
        [],
    ),
    "threads": (
        "import concurrent.futures\nfrom multiprocessing.pool import ThreadPool\n"
        "E = concurrent.futures.ThreadPoolExecutor(); P = ThreadPool(1)",
        [],
    ),
}


def test_processes_that_are_started_while_the_file_is_imported_are_told(tmp_path):
    filters = {
        name: text if "\n== " in text else text + HANDLER for name, (text, _) in CASES.items()
    }
    assert check_all(tmp_path, filters, []) == {name: said for name, (_, said) in CASES.items()}


def test_processes_of_the_filter_end_with_the_check(check, tmp_path):
    done = check(
        f"""
        import multiprocessing
        def wait():
            time.sleep(3600)
        P = multiprocessing.get_context("fork").Process(target=wait)
        P.start()
        open({str(tmp_path / "pid")!r}, "w").write(str(P.pid))
        app.filter.noop(lambda ctx: None)
        """
    )
    assert done.returncode == 0
    pid = (tmp_path / "pid").read_text()
    wait_until(lambda: not _runs(pid), 10.0, "the process to end")


def _runs(pid: str) -> bool:
    done = subprocess.run(["ps", "-o", "stat=", "-p", pid], capture_output=True, text=True)
    return bool(done.stdout.strip()) and not done.stdout.startswith("Z")
