"""Filters that are run as processes of their own; each is named by its first argument."""

import os
import signal
import sys
import time

import gevent
import gevent.monkey

from greenfilter import Filter, reject

app = Filter("process", deadline=60.0)
app.local_session(list, lambda local: print("session deleted"))
print("started")


@app.on_config
def configured(config):
    print("version", config.smtpd_version, "arguments", sys.argv[1:])


@app.filter.ehlo
def ehlo(ctx, identity):
    verb, _, rest = identity.partition(".")
    if verb == "print":
        sys.stdout.write("filter-result|x|y|proceed\n")
        os.write(1, b"register|ready\n")
        os.system("echo from a child; cat")
    elif verb == "reject":
        return reject(550, rest)
    elif verb == "exit":
        sys.exit(3)
    elif verb == "greenlet":
        gevent.spawn(sys.exit, 3)
    elif verb == "kill":
        os.kill(os.getpid(), signal.SIGTERM)
    elif verb == "sleep":
        time.sleep(3600)
    elif verb == "deaf":
        while True:
            try:
                time.sleep(3600)
            except BaseException:
                continue
    elif verb == "threads":
        gevent.get_hub().threadpool.spawn(gevent.monkey.get_original("time", "sleep"), 3600)
    return None


@app.filter.noop(thread=True)
def noop(ctx):
    gevent.monkey.get_original("time", "sleep")(3600)
