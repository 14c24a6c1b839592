"""What one client sends while its handler takes its time keeps no other client waiting."""

from __future__ import annotations

CODE = """
seen = 0
app = Filter("slow", deadline=60)

@app.filter.noop
def noop(ctx): return reject(550, "alive")

def wait():
    while not os.path.exists(sys.argv[1]): time.sleep(0.05)

@app.report.protocol_client
def log(ctx, command):
    global seen
    if command == "SLOW": wait()
    seen += 1
    if command == "LAST": ctx.log.warning("seen %d", seen)

@app.lines
def lines(ctx, lines):
    wait()
    yield from lines
"""


def test_a_hundred_thousand_reports_of_one_client(run, write, tmp_path):
    smtpd = run(write(CODE), "--", str(tmp_path / "gate"))
    slow, other = smtpd.client(), smtpd.client()
    line = b"report|0.7|1.0|smtp-in|protocol-client|%b|" % slow.id.encode()
    smtpd.send_raw(line + b"SLOW\n")
    for _ in range(110):
        smtpd.send_raw((line + b"NOOP\n") * 1000)
    smtpd.send_raw(line + b"LAST\n")
    assert other.noop().code == 550
    assert not [each for each in smtpd.log if "seen" in each]
    (tmp_path / "gate").touch()
    smtpd.wait_for_log(r"seen 1100\d\d")
    assert slow.noop().code == 550


def test_a_message_that_comes_in_many_small_packets(run, write, tmp_path):
    smtpd = run(write(CODE), "--", str(tmp_path / "gate"))
    slow, other = smtpd.client(), smtpd.client()
    assert slow.mail_from("alice@example.net").ok
    assert slow.rcpt_to("bob@example.org").ok
    assert slow.data_begin().code == 354
    for number in range(2000):
        slow.data_lines([b"%d" % number])
        if number % 500 == 0:
            assert other.noop().code == 550
    (tmp_path / "gate").touch()
    assert slow.data_end().ok
    assert len(slow.delivered[-1].data.splitlines()) >= 2000
